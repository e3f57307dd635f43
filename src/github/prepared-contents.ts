/** One file to be committed. `path` has been validated: relative, `/` between segments, no clash with another. */
export interface ContentFile {
  path: string
  content: Uint8Array
  executable: boolean
}

/** Everything about the commit besides the files; together they fix its id. */
export interface CommitPlan {
  message: string
  author: { name: string; email: string }
  /** Seconds since 1970, UTC: author and committer time. */
  unixSeconds: number
}

/**
 * One commit without parents, with all its trees and blobs, as the git pack that is pushed
 * (gitformat-pack(5)): what is accepted is byte for byte what is sent.
 */
export interface PreparedContents {
  /** 40 hex digits each. */
  commit: string
  tree: string
  objectCount: number
  /** Length of the whole pack. */
  packBytes: number
  /** The pack, in parts; may be called again, and then starts over. */
  pack(): AsyncIterable<Uint8Array>
  /** The pack's index, version 2: 28 bytes an object and some. */
  index(): Promise<Uint8Array>
}

/**
 * Contents whose pack is read from where it was stored, or from memory.
 * Reading rejects when the parts do not add up to `packBytes`: half a pack is never taken for a whole one.
 */
export function preparedContents(
  facts: Pick<PreparedContents, 'commit' | 'tree' | 'objectCount' | 'packBytes'>,
  readParts: () => Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  readIndex: () => Promise<Uint8Array>,
): PreparedContents {
  const { commit, tree, objectCount, packBytes } = facts
  async function* pack() {
    let length = 0
    for await (const part of readParts()) {
      length += part.length
      yield part
    }
    if (length !== packBytes) throw new Error(`The stored pack has ${length} bytes instead of ${packBytes}.`)
  }
  return { commit, tree, objectCount, packBytes, pack, index: readIndex }
}
