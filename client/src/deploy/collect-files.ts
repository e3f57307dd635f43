/** A file that was chosen, with its path in the repository. */
export interface SelectedFile {
  path: string
  file: File
}

export interface Collection {
  files: SelectedFile[]
  /** How many were left out: .git folders and what operating systems leave behind. */
  skipped: number
}

export const MAX_FILES = 20_000

/** More files than a deployment may have. Walking on would only take time. */
export class TooManyFilesError extends Error {}

/** What was dropped on the page. Has to be called in the turn of the drop event: the browser forgets the items after it. */
export async function collectDropped(items: DataTransferItemList, signal: AbortSignal): Promise<Collection> {
  const collector = new Collector()
  const entries: FileSystemEntry[] = []
  for (const item of items) {
    const entry = item.webkitGetAsEntry()
    const file = entry ? null : item.getAsFile()
    if (entry) entries.push(entry)
    else if (file) collector.add({ path: file.name, file })
  }
  // One folder dropped is the repository; several things dropped lie beside each other in it.
  const [only] = entries
  const roots = entries.length === 1 && isFolder(only) ? await childrenOf(only) : entries
  for (const entry of roots) await walk(entry, '', collector, signal)
  return collector
}

/** What was picked: a folder (its own name is not part of the paths), or single files. */
export function collectPicked(list: FileList): Collection {
  const collector = new Collector()
  for (const file of list) {
    const inFolder = file.webkitRelativePath.split('/').slice(1).join('/')
    collector.add({ path: inFolder || file.name, file })
  }
  return collector
}

class Collector implements Collection {
  readonly files: SelectedFile[] = []
  skipped = 0

  add(chosen: SelectedFile) {
    if (isLeftOut(chosen.path)) {
      this.skipped++
      return
    }
    this.files.push(chosen)
    if (this.files.length > MAX_FILES) throw new TooManyFilesError()
  }
}

async function walk(entry: FileSystemEntry, folder: string, collector: Collector, signal: AbortSignal) {
  signal.throwIfAborted()
  const path = folder + entry.name
  if (isLeftOut(path)) {
    collector.skipped++
  } else if (isFolder(entry)) {
    for (const child of await childrenOf(entry)) await walk(child, `${path}/`, collector, signal)
  } else if (isFile(entry)) {
    collector.add({ path, file: await new Promise<File>((resolve, reject) => entry.file(resolve, reject)) })
  }
}

/** A reader gives a part of the folder each time, and nothing at its end. */
async function childrenOf(folder: FileSystemDirectoryEntry): Promise<FileSystemEntry[]> {
  const reader = folder.createReader()
  const children: FileSystemEntry[] = []
  for (;;) {
    const part = await new Promise<FileSystemEntry[]>((resolve, reject) =>
      reader.readEntries(resolve, reject),
    )
    if (part.length === 0) return children
    children.push(...part)
  }
}

function isFolder(entry: FileSystemEntry | undefined): entry is FileSystemDirectoryEntry {
  return entry?.isDirectory === true
}

function isFile(entry: FileSystemEntry): entry is FileSystemFileEntry {
  return entry.isFile
}

const leftOut =
  /^(\.git|\.DS_Store|\.AppleDouble|\.LSOverride|\.Spotlight-V100|\.Trashes|\.fseventsd|__MACOSX|\._.*|Thumbs\.db|ehthumbs\.db|desktop\.ini|\$RECYCLE\.BIN)$/i

export function isLeftOut(path: string): boolean {
  return path.split('/').some((name) => leftOut.test(name))
}
