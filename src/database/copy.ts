import type { Writable } from 'node:stream'
import pg from 'pg'
import { to } from 'pg-copy-streams'

/*
 * Large values in binary. For a value in a statement, pg allocates several times its length in strings and
 * buffers, which V8 collects late; binary COPY allocates almost nothing.
 *
 *   signature | flags, 4 bytes | length of an extension, 4 bytes | row … | -1, 2 bytes
 *   row: number of values, 2 bytes | each value: length, 4 bytes, and the binary value
 *
 * https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format"
 */
const HEADER = Buffer.from('PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0', 'latin1')
const TRAILER = Buffer.from([0xff, 0xff])
const EMPTY_BUFFER = Buffer.alloc(0)
const COPY_DATA = Buffer.from('d')
const VALUE_OFFSET_BYTES = HEADER.length + 2 + 4

/** For a value in a statement that accepts no parameters. */
export const quoteLiteral = pg.escapeLiteral

/** The binary values of a row; valid until the next row is requested. */
export type CopyRow = readonly Uint8Array[]

/** @param text `copy … from stdin (format binary)` */
export function copyIn(client: pg.ClientBase, text: string, rows: AsyncIterable<CopyRow>): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  client.query(new CopyInQuery(text, rows, resolve, reject))
  return promise
}

/**
 * @param text `copy (select …) to stdout (format binary)` of one value
 * @returns the value in pieces as received; empty if it is null
 */
export async function copyOut(client: pg.ClientBase, text: string): Promise<Uint8Array[]> {
  const chunks: Buffer[] = await client.query(to(text)).toArray()
  const length = chunks.reduce((sum, chunk) => sum + chunk.length, 0)
  const pieces: Uint8Array[] = []
  let at = 0
  for (const chunk of chunks) {
    const start = Math.max(VALUE_OFFSET_BYTES - at, 0)
    const end = length - TRAILER.length - at
    if (start < Math.min(end, chunk.length)) pieces.push(chunk.subarray(start, end))
    at += chunk.length
  }
  return pieces
}

export function encodeInt4(value: number): Uint8Array {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value)
  return bytes
}

export function encodeUuid(value: string): Uint8Array {
  return Buffer.from(value.replaceAll('-', ''), 'hex')
}

type CopyConnection = pg.Connection & { endCopyFrom(): void; sendCopyFail(message: string): void }

/** pg-copy-streams neither reports when a row has left the process, nor closes its stream on an error. */
class CopyInQuery implements pg.Submittable {
  readonly text: string
  private readonly rows: AsyncIterable<CopyRow>
  private readonly resolve: () => void
  private readonly reject: (error: unknown) => void
  private failure: { error: unknown } | undefined
  private hasEnded = false

  constructor(
    text: string,
    rows: AsyncIterable<CopyRow>,
    resolve: () => void,
    reject: (error: unknown) => void,
  ) {
    this.text = text
    this.rows = rows
    this.resolve = resolve
    this.reject = reject
  }

  submit(connection: pg.Connection): void {
    connection.query(this.text)
  }

  handleCopyInResponse(connection: CopyConnection): void {
    void this.sendRows(connection)
  }

  handleCommandComplete(): void {}

  handleReadyForQuery(): void {
    this.hasEnded = true
    this.resolve()
  }

  /** Also called when the connection is lost. A row's error takes precedence over the server's response. */
  handleError(error: unknown): void {
    this.hasEnded = true
    this.reject(this.failure ? this.failure.error : error)
  }

  private async sendRows(connection: CopyConnection): Promise<void> {
    try {
      await writeCopyData(connection.stream, [HEADER])
      for await (const row of this.rows) {
        if (this.hasEnded) return
        const count = encodeInt4(row.length).subarray(2)
        await writeCopyData(connection.stream, [
          count,
          ...row.flatMap((value) => [encodeInt4(value.length), value]),
        ])
      }
      await writeCopyData(connection.stream, [TRAILER])
      if (!this.hasEnded) connection.endCopyFrom()
    } catch (error) {
      this.failure = { error }
      if (!this.hasEnded) connection.sendCopyFail('A row could not be read')
    }
  }
}

/** Writes a CopyData message. Resolves when it has left the process, or when the statement has failed. */
function writeCopyData(stream: Writable, parts: readonly Uint8Array[]): Promise<void> {
  const length = parts.reduce((sum, part) => sum + part.length, 4)
  return new Promise((resolve) => {
    stream.cork()
    for (const part of [COPY_DATA, encodeInt4(length), ...parts]) stream.write(part)
    stream.write(EMPTY_BUFFER, () => resolve())
    stream.uncork()
  })
}
