/** A file the user selected, with its path in the repository. */
export interface SelectedFile {
  path: string
  file: File
}

export interface CollectedFiles {
  files: SelectedFile[]
  /** How many files and folders were ignored: .git folders and operating system files. */
  ignoredCount: number
}

export const MAX_FILES = 20_000

/** Thrown early: reading a larger folder to its end would only take time. */
export class TooManyFilesError extends Error {}

/** Must be called synchronously from the drop event: the browser clears the items afterwards. */
export async function collectDropped(
  items: Iterable<DataTransferItem>,
  signal: AbortSignal,
): Promise<CollectedFiles> {
  const collector = new Collector()
  const entries: FileSystemEntry[] = []
  for (const item of items) {
    const entry = item.webkitGetAsEntry()
    const file = entry ? null : item.getAsFile()
    if (entry) entries.push(entry)
    else if (file) collector.add({ path: file.name, file })
  }
  // A single folder is the repository's root; several entries lie side by side in it.
  const [first] = entries
  const roots = entries.length === 1 && isFolder(first) ? await childrenOf(first) : entries
  for (const entry of roots) await walk(entry, '', collector, signal)
  return collector
}

/** From a file input: a folder, whose own name is not part of the paths, or individual files. */
export function collectPicked(picked: Iterable<File>): CollectedFiles {
  const collector = new Collector()
  for (const file of picked) {
    const pathInFolder = file.webkitRelativePath.split('/').slice(1).join('/')
    collector.add({ path: pathInFolder || file.name, file })
  }
  return collector
}

class Collector implements CollectedFiles {
  readonly files: SelectedFile[] = []
  ignoredCount = 0

  add(selected: SelectedFile) {
    if (isIgnored(selected.path)) {
      this.ignoredCount++
      return
    }
    this.files.push(selected)
    if (this.files.length > MAX_FILES) throw new TooManyFilesError()
  }
}

async function walk(entry: FileSystemEntry, folder: string, collector: Collector, signal: AbortSignal) {
  signal.throwIfAborted()
  const path = folder + entry.name
  if (isIgnored(path)) {
    collector.ignoredCount++
  } else if (isFolder(entry)) {
    for (const child of await childrenOf(entry)) await walk(child, `${path}/`, collector, signal)
  } else if (isFile(entry)) {
    collector.add({ path, file: await new Promise<File>((resolve, reject) => entry.file(resolve, reject)) })
  }
}

/** A reader returns a folder in batches; an empty batch ends it. */
async function childrenOf(folder: FileSystemDirectoryEntry): Promise<FileSystemEntry[]> {
  const reader = folder.createReader()
  const children: FileSystemEntry[] = []
  for (;;) {
    const batch = await new Promise<FileSystemEntry[]>((resolve, reject) =>
      reader.readEntries(resolve, reject),
    )
    if (batch.length === 0) return children
    children.push(...batch)
  }
}

function isFolder(entry: FileSystemEntry | undefined): entry is FileSystemDirectoryEntry {
  return entry?.isDirectory === true
}

function isFile(entry: FileSystemEntry): entry is FileSystemFileEntry {
  return entry.isFile
}

const IGNORED_NAMES =
  /^(\.git|\.DS_Store|\.AppleDouble|\.LSOverride|\.Spotlight-V100|\.Trashes|\.fseventsd|__MACOSX|\._.*|Thumbs\.db|ehthumbs\.db|desktop\.ini|\$RECYCLE\.BIN)$/i

function isIgnored(path: string): boolean {
  return path.split('/').some((name) => IGNORED_NAMES.test(name))
}
