import { TooLargeError } from '../errors.ts'

/** Brackets, colons and commas: 20,000 files with all of their fields have 180,000. */
const MAX_PARTS = 250_000
const MAX_DEPTH = 100

const QUOTE = 0x22
const BACKSLASH = 0x5c

const PART = 1
const OPEN = 2
const CLOSE = 3
const STRING = 4
/** The meaning of a byte outside of strings; 0: none. */
const BYTE_MEANINGS = new Uint8Array(256)
for (const character of ',:') BYTE_MEANINGS[character.charCodeAt(0)] = PART
for (const character of '[{') BYTE_MEANINGS[character.charCodeAt(0)] = OPEN
for (const character of ']}') BYTE_MEANINGS[character.charCodeAt(0)] = CLOSE
BYTE_MEANINGS[QUOTE] = STRING

/**
 * Checks JSON text before it is parsed, chunk by chunk as it arrives: parsing a few megabytes of `{},{},…`
 * would block the event loop for seconds. Long strings are cheap. The text is UTF-8 (RFC 8259, section 8.1).
 */
export class JsonLimits {
  private parts = 0
  private depth = 0
  private isInString = false
  private isEscaped = false

  /** @throws TooLargeError */
  check(chunk: Uint8Array): void {
    let index = 0
    while (index < chunk.length) {
      if (this.isInString) {
        index = this.skipString(chunk, index)
        continue
      }
      const meaning = BYTE_MEANINGS[chunk[index++] ?? 0]
      if (meaning === 0) continue
      if (meaning === STRING) this.isInString = true
      else if (meaning === CLOSE) this.depth--
      else this.count(meaning === OPEN)
    }
  }

  /** Returns the index after the string, or the end of the chunk. */
  private skipString(chunk: Uint8Array, start: number): number {
    let isEscaped = this.isEscaped
    for (let index = start; index < chunk.length; index++) {
      if (isEscaped) {
        isEscaped = false
      } else if (chunk[index] === BACKSLASH) {
        isEscaped = true
      } else if (chunk[index] === QUOTE) {
        this.isInString = false
        this.isEscaped = false
        return index + 1
      }
    }
    this.isEscaped = isEscaped
    return chunk.length
  }

  private count(isOpening: boolean): void {
    if (++this.parts > MAX_PARTS) {
      throw new TooLargeError(
        `The request has more than ${MAX_PARTS} values. Send fewer files, or split it into several requests.`,
      )
    }
    if (isOpening && ++this.depth > MAX_DEPTH) {
      throw new TooLargeError(
        `The request nests lists and objects more than ${MAX_DEPTH} levels deep. Flatten it.`,
      )
    }
  }
}
