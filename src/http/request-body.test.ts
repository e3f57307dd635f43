import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { brotliCompressSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { afterEach, describe, expect, test } from '@jest/globals'
import express, { type RequestHandler } from 'express'
import { waitUntil } from '../../test/support/processes.ts'
import { LOCAL_SUBJECT, type Subject } from '../auth/rights.ts'
import { type JsonBodyOptions, jsonBody } from './request-body.ts'

const MIB = 1024 * 1024
const DEPLOYER: Subject = {
  id: 'service:ci',
  name: 'ci',
  rights: { role: 'deployer', sees: ['acme'], deploysTo: ['acme'] },
}
const OTHER: Subject = { ...DEPLOYER, id: 'service:other' }
const VIEWER: Subject = {
  id: 'service:screen',
  name: 'screen',
  rights: { role: 'viewer', sees: 'all', deploysTo: [] },
}
const SUBJECTS = [LOCAL_SUBJECT, DEPLOYER, OTHER, VIEWER]

let server: Server | undefined
const sockets: Socket[] = []

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy()
  server?.closeAllConnections()
  await new Promise((resolve) => server?.close(resolve) ?? resolve(undefined))
  server = undefined
})

/** The subject is in a header. Responds with the length of the body's `x`, once `work` is done. */
async function serve(
  options: Partial<JsonBodyOptions> = {},
  work = async () => {},
  before: RequestHandler = (_request, _response, next) => next(),
): Promise<string> {
  const app = express()
  app.use(before)
  const subjectOf = ({ headers }: { headers: { as?: string } }) =>
    SUBJECTS.find(({ id }) => id === headers.as) ?? LOCAL_SUBJECT
  app.use(jsonBody({ subjectOf: subjectOf as JsonBodyOptions['subjectOf'], ...options }))
  app.use(async (request, response) => {
    await work()
    response.json({ length: request.body?.x?.length })
  })
  server = createServer(app).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

async function post(
  url: string,
  body: BodyInit,
  headers: Record<string, string> = {},
  subject = LOCAL_SUBJECT,
) {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', as: subject.id, ...headers },
    body,
    duplex: 'half',
  } as RequestInit)
  const { errors, length } = (await response.json()) as {
    errors?: { message: string; extensions: { code: string } }[]
    length?: number
  }
  return { status: response.status, headers: response.headers, error: errors?.[0], length }
}

const text = (bytes: number) => JSON.stringify({ x: 'x'.repeat(bytes) })

/** Declares `length` bytes, but sends none. */
async function begin(url: string, length: number, subject: Subject): Promise<Conversation> {
  const socket = connect(Number(new URL(url).port), '127.0.0.1')
  sockets.push(socket)
  const conversation = new Conversation(socket)
  socket.write(
    `POST / HTTP/1.1\r\nHost: x\r\nAs: ${subject.id}\r\nContent-Type: application/json\r\nContent-Length: ${length}\r\n\r\n`,
  )
  return conversation
}

class Conversation {
  received = ''
  private readonly closed: Promise<unknown>

  constructor(readonly socket: Socket) {
    socket.on('data', (chunk) => {
      this.received += chunk
    })
    socket.on('error', () => undefined)
    this.closed = once(socket, 'close')
  }

  /** Everything received, once the server has closed the connection. */
  async untilClosed(): Promise<string> {
    await this.closed
    return this.received
  }
}

/** Repeats the request until the server refuses it, because the budget is used up, or accepts it. */
async function postUntil(status: number, url: string, body: string, subject: Subject) {
  let answer = await post(url, body, {}, subject)
  const hasStatus = async () => {
    if (answer.status !== status) answer = await post(url, body, {}, subject)
    return answer.status === status
  }
  await waitUntil(hasStatus, () => `the status is ${status}: it is ${answer.status}`)
  return answer
}

describe('bodies in progress', () => {
  test('of one subject are limited in total, and leave room for others', async () => {
    const url = await serve({ maxBytes: 8 * MIB, maxSubjectBytes: 2 * MIB })
    for (let i = 0; i < 3; i++) await begin(url, MIB - 100, DEPLOYER)
    const refused = await postUntil(503, url, text(MIB), DEPLOYER)
    expect(refused.error?.extensions).toEqual({ code: 'RATE_LIMITED', retryAfterMs: 2_000 })
    expect(refused.headers.get('retry-after')).toBe('2')
    expect((await post(url, text(MIB), {}, OTHER)).length).toBe(MIB)
    // This subject can still send queries.
    expect((await post(url, text(1_000), {}, DEPLOYER)).length).toBe(1_000)
  })

  test('of all subjects are limited in total; the local subject has only this limit', async () => {
    const url = await serve({ maxBytes: 4 * MIB, maxSubjectBytes: MIB })
    for (let i = 0; i < 3; i++) await begin(url, MIB, LOCAL_SUBJECT)
    expect((await post(url, text(MIB - 100))).length).toBe(MIB - 100)
    await begin(url, MIB, LOCAL_SUBJECT)
    expect((await postUntil(503, url, text(MIB - 100), LOCAL_SUBJECT)).error?.message).toContain(
      'node is busy',
    )
    expect((await post(url, text(MIB - 100), {}, OTHER)).status).toBe(503)
    expect((await post(url, text(1_000), {}, OTHER)).length).toBe(1_000)
  })

  test('count by the bytes that have arrived if no length is declared, and by their decompressed size', async () => {
    const url = await serve({ maxBytes: 4 * MIB, maxSubjectBytes: MIB })
    const chunked = (bytes: number) => new Blob([text(bytes)]).stream()
    expect((await post(url, chunked(MIB / 2), {}, DEPLOYER)).length).toBe(MIB / 2)
    expect((await post(url, chunked(2 * MIB), {}, DEPLOYER)).status).toBe(503)
    const gzip = { 'content-encoding': 'gzip' }
    expect((await post(url, gzipSync(text(MIB / 2)), gzip, DEPLOYER)).length).toBe(MIB / 2)
    expect((await post(url, gzipSync(text(2 * MIB)), gzip, DEPLOYER)).status).toBe(503)
  })

  test('are released when the client disconnects', async () => {
    const url = await serve({ maxBytes: MIB, maxSubjectBytes: MIB })
    for (let round = 0; round < 3; round++) {
      const { socket } = await begin(url, MIB, DEPLOYER)
      await postUntil(503, url, text(MIB / 2), DEPLOYER)
      socket.destroy()
      await postUntil(200, url, text(MIB / 2), DEPLOYER)
    }
  })

  test('do not count if the client has already disconnected', async () => {
    const before: RequestHandler = (request, _response, next) => {
      if (Number(request.headers['content-length']) === MIB) request.once('close', next)
      else next()
    }
    const url = await serve({ maxBytes: MIB, maxSubjectBytes: MIB, graceSeconds: 3_600 }, undefined, before)
    const arrived = once(server as Server, 'request')
    const { socket } = await begin(url, MIB, DEPLOYER)
    const [request] = await arrived
    const gone = new Promise((resolve) => request.once('close', () => setImmediate(resolve)))
    socket.destroy()
    await gone
    expect((await post(url, text(MIB / 2), {}, DEPLOYER)).status).toBe(200)
  })

  test('count until the response is written, even if the client has disconnected', async () => {
    const started = Promise.withResolvers<void>()
    const finish = Promise.withResolvers<void>()
    let requests = 0
    const url = await serve({ maxBytes: MIB, maxSubjectBytes: MIB }, async () => {
      started.resolve()
      if (requests++ === 0) await finish.promise
    })
    const body = text(MIB / 2 + 1)
    const { socket } = await begin(url, body.length, DEPLOYER)
    socket.write(body)
    await started.promise
    socket.destroy()
    for (let i = 0; i < 20; i++) expect((await post(url, body, {}, DEPLOYER)).status).toBe(503)
    finish.resolve()
    await postUntil(200, url, body, DEPLOYER)
  })

  test('that arrive too slowly are refused, and their connection is closed', async () => {
    const url = await serve({ graceSeconds: 1, minBytesPerSecond: 1_000 })
    const slow = await begin(url, MIB, LOCAL_SUBJECT)
    const drip = setInterval(() => slow.socket.write('x'), 50)
    const answer = await slow.untilClosed()
    clearInterval(drip)
    expect(answer).toContain('HTTP/1.1 408 ')
    expect(answer).toContain('"code":"BAD_REQUEST"')
  })
})

describe('a body', () => {
  test('of up to 32 MiB is read; a larger one is refused before it has been sent', async () => {
    const url = await serve()
    const maxLength = 32 * MIB - text(0).length
    expect((await post(url, text(maxLength))).length).toBe(maxLength)
    const { status, error } = await post(url, text(maxLength + 1))
    expect([status, error?.extensions.code]).toEqual([413, 'TOO_LARGE'])
    expect(await (await begin(url, 33 * MIB, LOCAL_SUBJECT)).untilClosed()).toContain('HTTP/1.1 413 ')
  })

  test('of a subject that cannot deploy is at most 1 MiB, however it is sent', async () => {
    const url = await serve()
    const bodies: [BodyInit, Record<string, string>][] = [
      [text(2 * MIB), {}],
      [new Blob([text(2 * MIB)]).stream(), {}],
      [gzipSync(text(2 * MIB)), { 'content-encoding': 'gzip' }],
    ]
    for (const [body, headers] of bodies) {
      const { status, error } = await post(url, body, headers, VIEWER)
      expect([status, error?.extensions.code]).toEqual([413, 'TOO_LARGE'])
    }
    expect((await post(url, text(MIB / 2), {}, VIEWER)).length).toBe(MIB / 2)
  })

  test.each([
    ['gzip', gzipSync],
    ['deflate', deflateSync],
    ['br', brotliCompressSync],
    ['zstd', zstdCompressSync],
  ])('in %s is decompressed, up to 32 MiB', async (encoding, compress) => {
    const url = await serve()
    const headers = { 'content-encoding': encoding }
    expect((await post(url, compress(text(MIB)), headers)).length).toBe(MIB)
    expect((await post(url, compress(Buffer.alloc(40 * MIB)), headers)).status).toBe(413)
    for (const broken of [compress(text(MIB)).subarray(0, -20), Buffer.from(text(10))]) {
      expect((await post(url, broken, headers)).error?.extensions.code).toBe('BAD_USER_INPUT')
    }
  })

  test.each(['utf-8', 'UTF-8', '"utf-8"', 'utf-16', 'utf-16le', 'utf-16be'])('may be %s', async (charset) => {
    const url = await serve()
    const utf16 = Buffer.from(text(10), 'utf16le')
    const body = /be$/.test(charset) ? utf16.swap16() : /16/.test(charset) ? utf16 : text(10)
    const headers = { 'content-type': `Application/JSON; charset=${charset}` }
    expect((await post(url, body, headers)).length).toBe(10)
  })

  test.each([
    ['not JSON', '{"x":', {}, 400, 'BAD_USER_INPUT'],
    ['JSON, but not an object', '"x"', {}, 400, 'BAD_USER_INPUT'],
    ['not UTF-8', Buffer.from([0x22, 0xff, 0x22]), {}, 400, 'BAD_USER_INPUT'],
    [
      'in another character set',
      '{}',
      { 'content-type': 'application/json; charset=latin1' },
      400,
      'BAD_USER_INPUT',
    ],
    ['in an unknown compression', '{}', { 'content-encoding': 'gzip, gzip' }, 400, 'BAD_USER_INPUT'],
    ['plain text', '{}', { 'content-type': 'text/plain' }, 400, 'BAD_REQUEST'],
    ['a form', 'x=y', { 'content-type': 'application/x-www-form-urlencoded' }, 400, 'BAD_REQUEST'],
    ['millions of values', `[${'{},'.repeat(300_000)}0]`, {}, 413, 'TOO_LARGE'],
    ['very deep', `${'['.repeat(101)}${']'.repeat(101)}`, {}, 413, 'TOO_LARGE'],
  ])('that is %s is refused', async (_, body, headers, status, code) => {
    const url = await serve()
    const answer = await post(url, body, headers as unknown as Record<string, string>)
    expect([answer.status, answer.error?.extensions.code]).toEqual([status, code])
  })

  test('may contain commas, braces and escaped quotation marks in strings, as source code does', async () => {
    const url = await serve()
    const x = '{[,"\\'.repeat(300_000)
    expect((await post(url, JSON.stringify({ x }))).length).toBe(x.length)
  })
})

test('the next request uses the same connection', async () => {
  const url = await serve()
  const body = gzipSync(text(10))
  const conversation = await begin(url, 0, LOCAL_SUBJECT)
  const head = `POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n`
  const garbage = Buffer.alloc(1_000)
  conversation.socket.write(
    `${head}Content-Encoding: gzip\r\nContent-Length: ${body.length + garbage.length}\r\n\r\n`,
  )
  conversation.socket.write(Buffer.concat([body, garbage]))
  conversation.socket.write(`${head}Content-Length: 9\r\nConnection: close\r\n\r\n{"x":"y"}`)
  const answer = await conversation.untilClosed()
  expect(answer.match(/HTTP\/1.1 200/g)).toHaveLength(3)
  expect(answer).toContain('{"length":10}')
  expect(answer).toContain('{"length":1}')
})
