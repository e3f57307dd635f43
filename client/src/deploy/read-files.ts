import { files as filesInWords, size } from '../format.ts'
import type { FileInput } from '../gql/graphql.ts'
import { type Collection, MAX_FILES, type SelectedFile, TooManyFilesError } from './collect-files.ts'

export interface ReadContents {
  files: FileInput[]
  sizeBytes: number
  skipped: number
}

/** What was chosen cannot be deployed; the message says why and what to do. */
export class FileSelectionError extends Error {}

/** The server takes 32 MiB a request; the rest of the request needs room too. */
const mostRequestBytes = 30 * 1024 * 1024
const readAtOnce = 16

/**
 * Reads what was chosen, as the request will carry it: text as it is, all else in base64.
 * @throws FileSelectionError
 */
export async function readContents(
  collect: Promise<Collection>,
  { signal, onProgress }: { signal: AbortSignal; onProgress(read: number, total: number): void },
): Promise<ReadContents> {
  const { files: chosen, skipped } = await collected(collect)
  const files: FileInput[] = []
  let sizeBytes = 0
  let requestBytes = 0
  for (let start = 0; start < chosen.length; start += readAtOnce) {
    signal.throwIfAborted()
    onProgress(start, chosen.length)
    for (const { input, bytes } of await Promise.all(chosen.slice(start, start + readAtOnce).map(read))) {
      files.push(input)
      sizeBytes += bytes
      requestBytes += bytesInRequest(input)
    }
    if (requestBytes > mostRequestBytes) throw tooLarge(chosen)
  }
  return { files, sizeBytes, skipped }
}

async function collected(collect: Promise<Collection>): Promise<Collection> {
  const collection = await collect.catch((error: unknown) => {
    if (!(error instanceof TooManyFilesError)) throw error
    throw new FileSelectionError(
      `This is more than ${filesInWords(MAX_FILES)}, the most that a deployment can have. Leave out what is installed or built, such as node_modules.`,
    )
  })
  if (collection.files.length === 0)
    throw new FileSelectionError('There is no file in this. Choose something else.')
  return collection
}

async function read({ path, file }: SelectedFile): Promise<{ input: FileInput; bytes: number }> {
  const buffer = await file.arrayBuffer().catch(() => {
    throw new FileSelectionError(`${path} could not be read. Is it still there, and may the browser read it?`)
  })
  const bytes = new Uint8Array(buffer)
  return { input: toFileInput(path, bytes), bytes: bytes.length }
}

/** A browser does not tell which files are executable; their first line does. */
export function toFileInput(path: string, bytes: Uint8Array): FileInput {
  const executable = isScript(bytes)
  const text = asText(bytes)
  return text === null
    ? { path, content: toBase64(bytes), encoding: 'BASE64', executable }
    : { path, content: text, encoding: 'UTF8', executable }
}

/**
 * `#!`, perhaps blanks, and the path of an interpreter, as execve(2) reads it: not Rust's `#![allow(…)]`. Linux looks at
 * 256 bytes.
 */
function isScript(bytes: Uint8Array): boolean {
  const [start = ''] = String.fromCharCode(...bytes.subarray(0, 256)).split('\n')
  return /^#![ \t]*\//.test(start)
}

/** Null when the bytes would not come back the same from a string. */
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
  // In parts: a call takes only so many arguments.
  for (let start = 0; start < bytes.length; start += 0x8000) {
    binary += String.fromCharCode(...bytes.subarray(start, start + 0x8000))
  }
  return btoa(binary)
}

function bytesInRequest({ path, content }: FileInput): number {
  return encoder.encode(JSON.stringify({ path, content })).length
}

const encoder = new TextEncoder()

function tooLarge(chosen: readonly SelectedFile[]): FileSelectionError {
  const total = chosen.reduce((sum, { file }) => sum + file.size, 0)
  const largest = chosen.reduce((a, b) => (b.file.size > a.file.size ? b : a))
  return new FileSelectionError(
    `These ${filesInWords(chosen.length)} (${size(total)}) are more than the 30 MiB that one request can carry. The largest is ${largest.path} (${size(largest.file.size)}).`,
  )
}
