import { useCallback, useEffect, useRef, useState } from 'react'
import { type CollectedFiles, collectDropped, collectPicked } from './collect-files.ts'
import { FileSelectionError, type ReadContents, readContents } from './read-files.ts'

export type FileSelection =
  | { state: 'none' }
  | { state: 'reading'; total: number }
  | { state: 'read'; contents: ReadContents }
  | { state: 'failed'; reason: string }

/** The files the user selected, and how far they have been read. A new selection aborts reading the previous one. */
export function useFileSelection() {
  const [selection, setSelection] = useState<FileSelection>({ state: 'none' })
  const controllerRef = useRef<AbortController | null>(null)

  const start = useCallback((collect: (signal: AbortSignal) => Promise<CollectedFiles>) => {
    controllerRef.current?.abort()
    const controller = new AbortController()
    controllerRef.current = controller
    const { signal } = controller
    const update = (next: FileSelection) => {
      if (!signal.aborted) setSelection(next)
    }
    update({ state: 'reading', total: 0 })
    readContents(collect(signal), {
      signal,
      onProgress: (_, total) => update({ state: 'reading', total }),
    }).then(
      (contents) => update({ state: 'read', contents }),
      (error: unknown) => update({ state: 'failed', reason: reasonOf(error) }),
    )
  }, [])

  const drop = useCallback(
    (items: DataTransferItemList) => start((signal) => collectDropped(items, signal)),
    [start],
  )
  const pick = useCallback(
    (files: FileList) => {
      // Collected now: the list is emptied together with its input. A throw becomes a rejection.
      const collected = new Promise<CollectedFiles>((resolve) => resolve(collectPicked(files)))
      start(() => collected)
    },
    [start],
  )
  const remove = useCallback(() => {
    controllerRef.current?.abort()
    setSelection({ state: 'none' })
  }, [])
  useEffect(() => () => controllerRef.current?.abort(), [])

  return { selection, drop, pick, remove }
}

function reasonOf(error: unknown): string {
  if (error instanceof FileSelectionError) return error.message
  return 'Could not read the selected files. Choose them again.'
}
