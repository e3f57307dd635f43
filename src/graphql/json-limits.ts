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
/** What a byte means outside of a string; 0: nothing. */
const BYTE_MEANINGS = new Uint8Array(256)
for (const character of ',:') BYTE_MEANINGS[character.charCodeAt(0)] = PART
for (const character of '[{') BYTE_MEANINGS[character.charCodeAt(0)] = OPEN
for (const character of ']}') BYTE_MEANINGS[character.charCodeAt(0)] = CLOSE
BYTE_MEANINGS[QUOTE] = STRING

/**
 * Looks at a JSON text before it is parsed, piece by piece as it comes: parsing a few megabytes of `{},{},…` would take
 * seconds, in which nobody else has a turn. Long strings are cheap. The text is in UTF-8 (RFC 8259, section 8.1).
 */
export class JsonLimits {
  private parts = 0
  private depth = 0
  private isInString = false
  private isEscaped = false

  /** @throws TooLarge */
  check(piece: Uint8Array): void {
    let index = 0
    while (index < piece.length) {
      if (this.isInString) {
        index = this.skipString(piece, index)
        continue
      }
      const meaning = BYTE_MEANINGS[piece[index++] ?? 0]
      if (meaning === 0) continue
      if (meaning === STRING) this.isInString = true
      else if (meaning === CLOSE) this.depth--
      else this.count(meaning === OPEN)
    }
  }

  /** Returns the place behind the string, or the end of the piece. */
  private skipString(piece: Uint8Array, start: number): number {
    let isEscaped = this.isEscaped
    for (let index = start; index < piece.length; index++) {
      if (isEscaped) {
        isEscaped = false
      } else if (piece[index] === BACKSLASH) {
        isEscaped = true
      } else if (piece[index] === QUOTE) {
        this.isInString = false
        this.isEscaped = false
        return index + 1
      }
    }
    this.isEscaped = isEscaped
    return piece.length
  }

  private count(isOpening: boolean): void {
    if (++this.parts > MAX_PARTS) {
      throw new TooLargeError(
        `The request has more than ${MAX_PARTS} values. Send fewer files, or ask in parts.`,
      )
    }
    if (isOpening && ++this.depth > MAX_DEPTH) {
      throw new TooLargeError(
        `The request nests lists and objects more than ${MAX_DEPTH} levels deep. Flatten it.`,
      )
    }
  }
}
