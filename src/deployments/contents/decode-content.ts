import type { FieldError } from '../../errors.ts'
import type { ContentFile } from '../../github/git/commit-pack.ts'
import type { CooperativeScheduler } from '../../runtime/cooperative-scheduler.ts'
import type { FileInput } from '../deploy-input.ts'
import { validateGitFile } from './git-file-rules.ts'
import { findPathClashes, validatePath } from './path-rules.ts'

/** GitHub's limit for a file in a push (error GH001). */
export const MAX_FILE_BYTES = 100 * 1024 * 1024

/** In one go below this. A multiple of 4, so that a part of BASE64 text stands on its own. */
const PART_LENGTH = 512 * 1024

const TOO_LARGE = `must be at most ${MAX_FILE_BYTES / 1024 / 1024} MiB, which is GitHub's limit for a file`
const LONE_SURROGATE =
  'is not text: it has a lone surrogate, which UTF-8 cannot express. Send the file as BASE64'
const NOT_BASE64 =
  'is not BASE64: only A–Z a–z 0–9 + / without spaces or line breaks, padded with "=" to a multiple of 4, unused bits zero'

/** The bytes, or the reason why there are none. Large contents take several slices; small ones return at once. */
export function decodeContent(
  content: string,
  encoding: 'UTF8' | 'BASE64',
  slices: CooperativeScheduler,
): Uint8Array | string | Promise<Uint8Array | string> {
  if (content.length > PART_LENGTH) return decodeInParts(content, encoding, slices)
  return decodePart(content, encoding)
}

function decodePart(part: string, encoding: 'UTF8' | 'BASE64'): Buffer | string {
  if (encoding === 'UTF8') return part.isWellFormed() ? Buffer.from(part) : LONE_SURROGATE
  // Buffer skips what it does not know; only strict BASE64 comes back as it went in.
  const bytes = Buffer.from(part, 'base64')
  return bytes.toString('base64') === part ? bytes : NOT_BASE64
}

async function decodeInParts(
  content: string,
  encoding: 'UTF8' | 'BASE64',
  slices: CooperativeScheduler,
): Promise<Uint8Array | string> {
  const parts: Buffer[] = []
  let sizeBytes = 0
  for (let start = 0, end = 0; start < content.length; start = end) {
    if (slices.shouldYield) await slices.yieldToEventLoop()
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

export const MAX_FILES = 20_000

const INPUT_PATH = 'input.contents.files'

/** Checks and decodes files in one pass; the faults it finds are added to `faults`, and the result is then incomplete. */
export async function readFiles(
  files: readonly FileInput[],
  slices: CooperativeScheduler,
  faults: FieldError[],
): Promise<ContentFile[]> {
  if (files.length === 0) faults.push({ path: INPUT_PATH, reason: 'must have at least one file' })
  if (files.length > MAX_FILES) {
    faults.push({ path: INPUT_PATH, reason: `must have at most ${MAX_FILES} files, but has ${files.length}` })
    return []
  }
  const contents: ContentFile[] = []
  for (const [index, file] of files.entries()) {
    if (slices.shouldYield) await slices.yieldToEventLoop()
    for (const reason of validatePath(file.path))
      faults.push({ path: `${INPUT_PATH}[${index}].path`, reason })
    const decoded = decodeContent(file.content, file.encoding ?? 'UTF8', slices)
    // Awaiting costs a turn of the microtask queue: only where there is something to wait for.
    const content = decoded instanceof Promise ? await decoded : decoded
    if (typeof content === 'string') {
      faults.push({ path: `${INPUT_PATH}[${index}].content`, reason: content })
      continue
    }
    for (const reason of validateGitFile(file.path, content)) {
      faults.push({ path: `${INPUT_PATH}[${index}].content`, reason })
    }
    contents.push({ path: file.path, content, executable: file.executable ?? false })
  }
  const paths = files.map((file) => file.path)
  const clashes = await findPathClashes(paths, (index) => `${INPUT_PATH}[${index}].path`, slices)
  for (const fault of clashes) faults.push(fault)
  return contents
}
