import type { FieldError } from '../../errors.ts'
import type { ContentFile } from '../../github/git/commit-pack.ts'
import type { CooperativeScheduler } from '../../runtime/cooperative-scheduler.ts'
import { validateGitFile } from './git-file-rules.ts'
import { findPathClashes, validatePath } from './path-rules.ts'

export type FileEncoding = 'UTF8' | 'BASE64'

export const MAX_FILES = 20_000
/** GitHub's limit for a file in a push (error GH001). */
export const MAX_FILE_BYTES = 100 * 1024 * 1024

/**
 * Shorter contents are decoded in one step. A multiple of 4, so that each part of BASE64
 * text is valid by itself.
 */
const PART_LENGTH = 512 * 1024

const TOO_LARGE = `must be at most ${MAX_FILE_BYTES / 1024 / 1024} MiB, which is GitHub's limit for a file`
const LONE_SURROGATE =
  'is not text: it contains a lone surrogate, which UTF-8 cannot encode. Send the file as BASE64'
const NOT_BASE64 =
  'is not BASE64: only A–Z a–z 0–9 + / without spaces or line breaks, padded with "=" to a multiple of 4, unused bits zero'

const INPUT_PATH = 'input.contents.files'

interface EncodedFile {
  path: string
  content: string
  encoding?: FileEncoding | null
  executable?: boolean | null
}

/** Validates and decodes files in one pass. Adds to `errors` what is wrong; the result is then incomplete. */
export async function decodeFiles(
  files: readonly EncodedFile[],
  scheduler: CooperativeScheduler,
  errors: FieldError[],
): Promise<ContentFile[]> {
  if (files.length === 0) errors.push({ path: INPUT_PATH, reason: 'must have at least one file' })
  if (files.length > MAX_FILES) {
    errors.push({ path: INPUT_PATH, reason: `must have at most ${MAX_FILES} files, but has ${files.length}` })
    return []
  }
  const contents: ContentFile[] = []
  for (const [index, file] of files.entries()) {
    if (scheduler.shouldYield) await scheduler.yieldToEventLoop()
    for (const reason of validatePath(file.path))
      errors.push({ path: `${INPUT_PATH}[${index}].path`, reason })
    const decoded = decodeContent(file.content, file.encoding ?? 'UTF8', scheduler)
    // Awaiting costs a microtask per file: only await a promise.
    const content = decoded instanceof Promise ? await decoded : decoded
    if (typeof content === 'string') {
      errors.push({ path: `${INPUT_PATH}[${index}].content`, reason: content })
      continue
    }
    for (const reason of validateGitFile(file.path, content)) {
      errors.push({ path: `${INPUT_PATH}[${index}].content`, reason })
    }
    contents.push({ path: file.path, content, executable: file.executable ?? false })
  }
  const paths = files.map((file) => file.path)
  const clashes = await findPathClashes(paths, (index) => `${INPUT_PATH}[${index}].path`, scheduler)
  for (const clash of clashes) errors.push(clash)
  return contents
}

/** The bytes, or the reason the content is invalid. Yields to the event loop in large contents only. */
export function decodeContent(
  content: string,
  encoding: FileEncoding,
  scheduler: CooperativeScheduler,
): Uint8Array | string | Promise<Uint8Array | string> {
  if (content.length > PART_LENGTH) return decodeInParts(content, encoding, scheduler)
  return decodePart(content, encoding)
}

function decodePart(part: string, encoding: FileEncoding): Buffer | string {
  if (encoding === 'UTF8') return part.isWellFormed() ? Buffer.from(part) : LONE_SURROGATE
  // Buffer skips invalid characters; only strict BASE64 survives the round trip.
  const bytes = Buffer.from(part, 'base64')
  return bytes.toString('base64') === part ? bytes : NOT_BASE64
}

async function decodeInParts(
  content: string,
  encoding: FileEncoding,
  scheduler: CooperativeScheduler,
): Promise<Uint8Array | string> {
  const parts: Buffer[] = []
  let sizeBytes = 0
  for (let start = 0, end = 0; start < content.length; start = end) {
    if (scheduler.shouldYield) await scheduler.yieldToEventLoop()
    end = start + PART_LENGTH
    if (encoding === 'UTF8' && isHighSurrogate(content.charCodeAt(end - 1))) end += 1
    const part = decodePart(content.slice(start, end), encoding)
    if (typeof part === 'string') return part
    if (encoding === 'BASE64' && end < content.length && part.length < (PART_LENGTH / 4) * 3)
      return NOT_BASE64
    parts.push(part)
    sizeBytes += part.length
    if (sizeBytes > MAX_FILE_BYTES) return TOO_LARGE
  }
  return Buffer.concat(parts, sizeBytes)
}

function isHighSurrogate(codeUnit: number): boolean {
  return codeUnit >= 0xd800 && codeUnit <= 0xdbff
}
