import type { Fault } from '../../errors.ts'
import type { ContentFile } from '../../github/prepared-contents.ts'
import { decodeContent } from './decode-content.ts'
import type { FileInput } from './deploy-input.ts'
import { gitFileFaults } from './git-file-faults.ts'
import { clashFaults, pathFaults } from './path-faults.ts'
import type { TimeSlices } from './time-slices.ts'

export const MAX_FILES = 20_000

const AT = 'input.contents.files'

/** Checks and decodes files in one pass; the faults it finds are added to `faults`, and the result is then incomplete. */
export async function readFiles(
  files: readonly FileInput[],
  slices: TimeSlices,
  faults: Fault[],
): Promise<ContentFile[]> {
  if (files.length === 0) faults.push({ path: AT, reason: 'must have at least one file' })
  if (files.length > MAX_FILES) {
    faults.push({ path: AT, reason: `must have at most ${MAX_FILES} files, but has ${files.length}` })
    return []
  }
  const contents: ContentFile[] = []
  for (const [index, file] of files.entries()) {
    if (slices.isOver) await slices.next()
    for (const reason of pathFaults(file.path)) faults.push({ path: `${AT}[${index}].path`, reason })
    const decoded = decodeContent(file.content, file.encoding ?? 'UTF8', slices)
    // Awaiting costs a turn of the microtask queue: only where there is something to wait for.
    const content = decoded instanceof Promise ? await decoded : decoded
    if (typeof content === 'string') {
      faults.push({ path: `${AT}[${index}].content`, reason: content })
      continue
    }
    for (const reason of gitFileFaults(file.path, content)) {
      faults.push({ path: `${AT}[${index}].content`, reason })
    }
    contents.push({ path: file.path, content, executable: file.executable ?? false })
  }
  const paths = files.map((file) => file.path)
  const clashes = await clashFaults(paths, (index) => `${AT}[${index}].path`, slices)
  for (const fault of clashes) faults.push(fault)
  return contents
}
