import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer, type RequestListener, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { type AddressInfo, connect } from 'node:net'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import { afterEach, describe, expect, test } from '@jest/globals'
import { AUTHORITY_FILE, readCertificate } from '../../../test/support/github/tls/certificate.ts'
import { withTimeout } from '../../../test/support/processes.ts'
import { HttpClient, NetworkError } from './http-client.ts'

const { signal } = new AbortController()
const servers: Server[] = []
const clients: HttpClient[] = []

afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections()
    server.close()
  }
  await Promise.all(clients.splice(0).map((each) => each.close()))
})

async function serve(
  listener: RequestListener,
  server: Server = createServer(),
): Promise<{ url: string; server: Server }> {
  server.on('request', listener).listen(0, '127.0.0.1')
  servers.push(server)
  await once(server, 'listening')
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server }
}

function open(...settings: ConstructorParameters<typeof HttpClient>): HttpClient {
  const client = new HttpClient(...settings)
  clients.push(client)
  return client
}

const get = (url: string) =>
  ({ method: 'GET', url, headers: {}, signal, timeoutMs: 10_000, maxResponseBytes: 1_000 }) as const

describe('a proxy', () => {
  test('is used, except for hosts in NO_PROXY', async () => {
    const target = await serve((_request, response) => response.end('there'))
    const tunnels: string[] = []
    const proxy = await serve((_request, response) => response.writeHead(400).end())
    proxy.server.on('connect', (request, socket, head) => {
      tunnels.push(request.url ?? '')
      const { port } = new URL(target.url)
      const upstream = connect(Number(port), '127.0.0.1', () => {
        socket.write('HTTP/1.1 200 Connection Established\r\n\r\n')
        upstream.write(head)
        upstream.pipe(socket).pipe(upstream)
      })
      upstream.on('error', () => socket.destroy())
      socket.on('error', () => upstream.destroy())
      socket.on('close', () => upstream.destroy())
    })
    const through = open({ httpProxy: proxy.url })
    expect((await through.send(get(target.url))).body.toString()).toBe('there')
    expect(tunnels).toEqual([new URL(target.url).host])
    for (const noProxy of ['127.0.0.1', '10.0.0.0/8, 127.0.0.0/8']) {
      const around = open({ httpProxy: proxy.url, noProxy })
      expect((await around.send(get(target.url))).status).toBe(200)
    }
    expect(tunnels).toHaveLength(1)
  })
})

describe('a certificate', () => {
  test('that is not trusted is reported before anything is sent, as an error that needs a person', async () => {
    let requestCount = 0
    const { url } = await serve(
      (_request, response) => {
        requestCount++
        response.end()
      },
      createTlsServer(await readCertificate()),
    )
    const unknown = open().send(get(url.replace('http:', 'https:')))
    await expect(unknown).rejects.toMatchObject({
      code: 'UNTRUSTED',
      remedy: 'person',
      message: expect.stringContaining('NODE_EXTRA_CA_CERTS'),
    })
    expect(requestCount).toBe(0)

    const known = getCACertificates()
    setDefaultCACertificates([...known, await readFile(AUTHORITY_FILE, 'utf8')])
    try {
      expect((await open().send(get(url.replace('http:', 'https:')))).status).toBe(200)
      const elsewhere = open().send(get(url.replace('http://127.0.0.1', 'https://localhost')))
      await expect(elsewhere).rejects.toMatchObject({
        code: 'UNTRUSTED',
        message: expect.stringContaining('ERR_TLS_CERT_ALTNAME_INVALID'),
      })
      expect(requestCount).toBe(1)
    } finally {
      setDefaultCACertificates(known)
    }
  })
})

describe('a response', () => {
  test('that redirects to itself is followed at most five times', async () => {
    let requestCount = 0
    const { url } = await serve((_request, response) => {
      requestCount++
      response.writeHead(301, { location: '/again' }).end()
    })
    await expect(open().send(get(url))).rejects.toMatchObject({ code: 'UNEXPECTED' })
    expect(requestCount).toBe(6)
  })

  test('longer than the limit is an error', async () => {
    const { url } = await serve((_request, response) => response.end(Buffer.alloc(1_001)))
    await expect(open().send(get(url))).rejects.toBeInstanceOf(NetworkError)
  })

  test('to an aborted request is never delivered: it rejects with the reason of the abort', async () => {
    const requested = Promise.withResolvers<void>()
    const { url } = await serve(() => requested.resolve())
    const abort = new AbortController()
    const call = open().send({ ...get(url), signal: abort.signal })
    await withTimeout(requested.promise, 'the server gets the request')
    const reason = new Error('lease lost')
    abort.abort(reason)
    await expect(call).rejects.toBe(reason)
  })

  test('follows a body sent in parts; if the source of the body fails, its error is thrown', async () => {
    const { url } = await serve((request, response) => {
      request.resume().on('end', () => response.end('accepted'))
    })
    async function* inParts() {
      for (let n = 0; n < 4; n++) {
        await new Promise(setImmediate)
        yield Buffer.from('part')
      }
    }
    const post = { ...get(url), method: 'POST', timeoutResetsOnProgress: true } as const
    expect((await open().send({ ...post, body: inParts() })).body.toString()).toBe('accepted')
    const failure = new Error('the database is down')
    // biome-ignore lint/correctness/useYield: it fails before its first part
    async function* failing(): AsyncGenerator<Uint8Array> {
      throw failure
    }
    await expect(open().send({ ...post, body: failing() })).rejects.toBe(failure)
  })
})

test('a response that arrives byte by byte still times out', async () => {
  const { url } = await serve((_request, response) => {
    const timer = setInterval(() => response.write('x'), 20)
    response.once('close', () => clearInterval(timer))
  })
  const call = open().send({
    ...get(url),
    timeoutMs: 100,
    timeoutResetsOnProgress: true,
    maxResponseBytes: 1_000_000,
  })
  await expect(call).rejects.toThrow('no response within 0.1 s')
})
