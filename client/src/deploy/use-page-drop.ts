import { useEffect, useState } from 'react'

/** Accepts files dropped anywhere on the page. Returns true while files are dragged over it. */
export function usePageDrop(onDrop: (items: DataTransferItemList) => void): boolean {
  const [isDragging, setDragging] = useState(false)
  useEffect(() => {
    const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes('Files') ?? false
    const onDragOver = (event: DragEvent) => {
      if (!hasFiles(event)) return
      event.preventDefault()
      setDragging(true)
    }
    const onDragLeave = (event: DragEvent) => {
      // Null: the pointer has left the window, not just moved to another element.
      if (event.relatedTarget === null) setDragging(false)
    }
    const onWindowDrop = (event: DragEvent) => {
      setDragging(false)
      if (!hasFiles(event) || !event.dataTransfer) return
      event.preventDefault()
      onDrop(event.dataTransfer.items)
    }
    window.addEventListener('dragover', onDragOver)
    window.addEventListener('dragleave', onDragLeave)
    window.addEventListener('drop', onWindowDrop)
    return () => {
      window.removeEventListener('dragover', onDragOver)
      window.removeEventListener('dragleave', onDragLeave)
      window.removeEventListener('drop', onWindowDrop)
    }
  }, [onDrop])
  return isDragging
}
