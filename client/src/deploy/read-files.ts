import { formatBytes, formatFileCount } from '../format.ts'
import type { FileInput } from '../gql/graphql.ts'
import { type CollectedFiles, MAX_FILES, type SelectedFile, TooManyFilesError } from './collect-files.ts'

export interface ReadContents {
  files: FileInput[]
  sizeBytes: number
  ignoredCount: number
}

/** The selection cannot be deployed; the message explains why and what to do. */
export class FileSelectionError extends Error {}

/** The server accepts requests of 32 MiB; the difference is room for the other fields. */
const MAX_CONTENTS_BYTES = 30 * 1024 * 1024
const MAX_CONCURRENT_READS = 16

/**
 * Reads the selected files into the form the request carries: text unchanged, everything else in base64.
 * @throws FileSelectionError
 */
export async function readContents(
  collecting: Promise<CollectedFiles>,
  { signal, onProgress }: { signal: AbortSignal; onProgress(read: number, total: number): void },
): Promise<ReadContents> {
  const { files: selected, ignoredCount } = await toCollected(collecting)
  const files: FileInput[] = []
  let sizeBytes = 0
  let requestBytes = 0
  for (let start = 0; start < selected.length; start += MAX_CONCURRENT_READS) {
    signal.throwIfAborted()
    onProgress(start, selected.length)
    const batch = selected.slice(start, start + MAX_CONCURRENT_READS)
    for (const { input, bytes } of await Promise.all(batch.map(read))) {
      files.push(input)
      sizeBytes += bytes
      requestBytes += requestSizeOf(input)
    }
    if (requestBytes > MAX_CONTENTS_BYTES) throw tooLarge(selected)
  }
  return { files, sizeBytes, ignoredCount }
}

async function toCollected(collecting: Promise<CollectedFiles>): Promise<CollectedFiles> {
  const collected = await collecting.catch((error: unknown) => {
    if (!(error instanceof TooManyFilesError)) throw error
    throw new FileSelectionError(
      `A deployment can contain at most ${formatFileCount(MAX_FILES)}. Leave out installed or generated files, such as node_modules.`,
    )
  })
  if (collected.files.length === 0)
    throw new FileSelectionError('The selection contains no files to deploy. Choose something else.')
  return collected
}

async function read({ path, file }: SelectedFile): Promise<{ input: FileInput; bytes: number }> {
  const buffer = await file.arrayBuffer().catch(() => {
    throw new FileSelectionError(
      `Could not read ${path}. Check that it still exists and that the browser has access to it.`,
    )
  })
  const bytes = new Uint8Array(buffer)
  return { input: toFileInput(path, bytes), bytes: bytes.length }
}

/** Browsers do not expose the executable bit, so it is derived from the first line. */
export function toFileInput(path: string, bytes: Uint8Array): FileInput {
  const executable = isScript(bytes)
  const text = asText(bytes)
  return text === null
    ? { path, content: toBase64(bytes), encoding: 'BASE64', executable }
    : { path, content: text, encoding: 'UTF8', executable }
}

/**
 * `#!`, optional blanks, and the path of an interpreter, as execve(2) reads it (Linux reads 256 bytes); not
 * Rust's `#![allow(…)]`.
 */
function isScript(bytes: Uint8Array): boolean {
  const [firstLine = ''] = String.fromCharCode(...bytes.subarray(0, 256)).split('\n')
  return /^#![ \t]*\//.test(firstLine)
}

/** Null if encoding the text again would not give the same bytes. */
function asText(bytes: Uint8Array): string | null {
  if (bytes.includes(0)) return null
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return null
  }
}

function toBase64(bytes: Uint8Array): string {
  let binary = ''
  // In chunks: the number of arguments of a call is limited.
  for (let start = 0; start < bytes.length; start += 0x8000) {
    binary += String.fromCharCode(...bytes.subarray(start, start + 0x8000))
  }
  return btoa(binary)
}

function requestSizeOf({ path, content }: FileInput): number {
  return encoder.encode(JSON.stringify({ path, content })).length
}

const encoder = new TextEncoder()

function tooLarge(selected: readonly SelectedFile[]): FileSelectionError {
  const totalBytes = selected.reduce((sum, { file }) => sum + file.size, 0)
  const largest = selected.reduce((a, b) => (b.file.size > a.file.size ? b : a))
  return new FileSelectionError(
    `These ${formatFileCount(selected.length)} (${formatBytes(totalBytes)}) do not fit into one request of ${formatBytes(MAX_CONTENTS_BYTES)}. The largest is ${largest.path} (${formatBytes(largest.file.size)}). Select fewer or smaller files.`,
  )
}
