import { useCallback, useEffect, useRef, useState } from 'react'
import { type Collection, collectDropped, collectPicked } from './collect-files.ts'
import { FileSelectionError, type ReadContents, readContents } from './read-files.ts'

export type Reading =
  | { state: 'none' }
  | { state: 'reading'; total: number }
  | { state: 'read'; contents: ReadContents }
  | { state: 'refused'; reason: string }

/** The files a person has chosen, and how far reading them is. Choosing again ends the reading before. */
export function useFileSelection() {
  const [reading, setReading] = useState<Reading>({ state: 'none' })
  const current = useRef<AbortController | null>(null)

  const begin = useCallback((collect: (signal: AbortSignal) => Promise<Collection>) => {
    current.current?.abort()
    const controller = new AbortController()
    current.current = controller
    const { signal } = controller
    const settle = (next: Reading) => {
      if (!signal.aborted) setReading(next)
    }
    settle({ state: 'reading', total: 0 })
    readContents(collect(signal), {
      signal,
      onProgress: (_, total) => settle({ state: 'reading', total }),
    }).then(
      (contents) => settle({ state: 'read', contents }),
      (error: unknown) => settle({ state: 'refused', reason: reasonOf(error) }),
    )
  }, [])

  const drop = useCallback(
    (items: DataTransferItemList) => begin((signal) => collectDropped(items, signal)),
    [begin],
  )
  const pick = useCallback(
    (list: FileList) => {
      // The list is emptied with its input; what is in it stays.
      const collection = new Promise<Collection>((resolve) => resolve(collectPicked(list)))
      begin(() => collection)
    },
    [begin],
  )
  const remove = useCallback(() => {
    current.current?.abort()
    setReading({ state: 'none' })
  }, [])
  useEffect(() => () => current.current?.abort(), [])

  return { reading, drop, pick, remove }
}

function reasonOf(error: unknown): string {
  if (error instanceof FileSelectionError) return error.message
  return 'This could not be read. Choose it again.'
}
