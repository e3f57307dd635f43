import { once } from 'node:events'
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { getIntrospectionQuery } from 'graphql'
import { WebSocket } from 'ws'
import { DEPLOY_MUTATION, type DeployResult, deployInput } from './support/inputs.ts'
import { TestServer } from './support/test-server.ts'
import { Viewer } from './support/viewer.ts'

let server: TestServer

beforeAll(async () => {
  server = await TestServer.start({ nodeOptions: ['--max-old-space-size=512'] })
})

afterAll(async () => {
  await server.stop()
  await server.removeData()
})

/** The maximum for one request, on a busy machine. Without limits, these requests take up to minutes. */
const MAX_ANSWER_MS = 10_000
const MAX_ANSWER_BYTES = 64 * 1024

interface Answer {
  status: number
  bytes: number
  codes: unknown[]
  headers: Headers
}

async function send(body: string | URLSearchParams): Promise<Answer> {
  const isGet = body instanceof URLSearchParams
  const response = await fetch(`${server.url}/graphql${isGet ? `?${body}` : ''}`, {
    ...(isGet ? {} : { method: 'POST', body, headers: { 'content-type': 'application/json' } }),
    signal: AbortSignal.timeout(MAX_ANSWER_MS),
  })
  const text = await response.text()
  const { errors = [] } = JSON.parse(text) as { errors?: { extensions?: { code?: unknown } }[] }
  const { status, headers } = response
  return { status, bytes: text.length, codes: errors.map(({ extensions }) => extensions?.code), headers }
}

/** Sends it as the only operation of a socket. Resolves to the codes of its errors, or the close code. */
async function sendOverSocket(payload: string): Promise<unknown[]> {
  const socket = new WebSocket(server.socketUrl, 'graphql-transport-ws')
  const answers: { type: string; payload: unknown }[] = []
  socket.on('message', (data) => answers.push(JSON.parse(String(data))))
  const closed = once(socket, 'close')
  await once(socket, 'open')
  socket.send('{"type":"connection_init"}')
  while (answers.length < 1) await once(socket, 'message')
  socket.send(`{"id":"1","type":"subscribe","payload":${payload}}`)
  const signal = AbortSignal.timeout(MAX_ANSWER_MS)
  await Promise.race([once(socket, 'message', { signal }), closed])
  const [answer] = answers.slice(1)
  if (!answer) return [(await closed)[0]]
  socket.terminate()
  const { payload: given } = answer
  expect(JSON.stringify(answer).length).toBeLessThan(MAX_ANSWER_BYTES)
  const errors = Array.isArray(given) ? given : (given as { errors: unknown[] }).errors
  return (errors as { extensions: { code: unknown } }[]).map(({ extensions }) => extensions.code)
}

const LIST = 'query($s: [DeploymentStatus!]) { deployments(status: $s) { edges { cursor } } }'
const DEPLOY_ONE = 'mutation($i: DeployInput!) { deploy(input: $i) { id } }'
const numbers = (count: number) => Array.from({ length: count }, (_, index) => index)
const body = (query: string, variables: string) =>
  `{"query":${JSON.stringify(query)},"variables":${variables}}`
const keys = (count: number) => JSON.stringify(Object.fromEntries(numbers(count).map((n) => [`k${n}`, 1])))
const filesOf = (file: object, count: number) =>
  JSON.stringify({ i: deployInput({ contents: { files: numbers(count).map(() => file) } }) })

describe('invalid variables are refused quickly, however many', () => {
  test.each([
    [
      'values that an enum does not have',
      body(LIST, `{"s":${JSON.stringify(numbers(120_000).map(() => 'X'))}}`),
    ],
    [
      'too many values that an enum has',
      body(LIST, `{"s":${JSON.stringify(numbers(120_000).map(() => 'FAILED'))}}`),
    ],
    ['a string of a megabyte', body(LIST, `{"s":["${'X'.repeat(1_000_000)}"]}`)],
    ['unknown keys', body(DEPLOY_ONE, `{"i":${keys(10_000)}}`)],
    ['more unknown keys', body(DEPLOY_ONE, `{"i":${keys(100_000)}}`)],
    ['files with a number for a path', body(DEPLOY_ONE, filesOf({ path: 1, content: '' }, 10_000))],
    ['more files than allowed', body(DEPLOY_ONE, filesOf({ path: 'x', content: '' }, 24_000))],
    ['empty objects', body(DEPLOY_ONE, `{"i":[${'{},'.repeat(300_000)}1]}`)],
    ['nested lists', body(LIST, `{"s":${'['.repeat(400_000)}${']'.repeat(400_000)}}`)],
    ['nested objects', body(DEPLOY_ONE, `{"i":${'{"i":'.repeat(100_000)}1${'}'.repeat(100_000)}}`)],
    ['a missing field beside a long one', body(DEPLOY_ONE, `{"i":{"repo":"${'x'.repeat(1_000_000)}"}}`)],
  ])('%s', async (_, text) => {
    const answer = await send(text)
    expect([400, 413]).toContain(answer.status)
    expect(['BAD_USER_INPUT', 'TOO_LARGE']).toContain(answer.codes[0])
    expect(answer.codes).toHaveLength(1)
    expect(answer.bytes).toBeLessThan(MAX_ANSWER_BYTES)
    if (text.length < 1024 * 1024) {
      const codes = await sendOverSocket(text)
      expect(codes).toHaveLength(1)
      expect(['BAD_USER_INPUT', 'TOO_LARGE', 4400]).toContain(codes[0])
    }
    expect((await fetch(`${server.url}/health/live`)).status).toBe(200)
  })

  test('four megabytes of them at once do not crash the process', async () => {
    const text = body(LIST, `{"s":${JSON.stringify(numbers(1_000_000).map(() => 'X'))}}`)
    const answers = await Promise.all(numbers(5).map(() => send(text)))
    for (const { codes } of answers) expect(codes).toEqual(['TOO_LARGE'])
  })

  test('valid ones are accepted: 20,000 files', async () => {
    const files = numbers(20_000).map((index) => ({ path: `f/${index % 100}/${index}`, content: '' }))
    const { errors } = await server.request<DeployResult>(DEPLOY_MUTATION, {
      input: deployInput({ contents: { files } }),
    })
    expect(errors).toBeUndefined()
  })
})

describe('expensive documents are refused', () => {
  const spread = (what: string) => `${what} `.repeat(22)
  const fragments = `fragment f0 on Query { ${spread('...f1')} } fragment f1 on Query { ${spread('...f2')} } fragment f2 on Query { ${spread('__typename')} }`
  const nested = (first: string) =>
    `deployments(first: ${first}) { edges { node { events(first: ${first}) { deployment { events(first: ${first}) { deployment { id } } } } } } }`
  const aliases = (count: number, field: string) => numbers(count).map((index) => `a${index}: ${field}`)

  test.each([
    [
      'beside fragments that spread each other',
      `{ ${aliases(40, nested('100')).join(' ')} ...f0 } ${fragments}`,
    ],
    ['by fragments alone', `{ ...f0 } ${fragments}`],
    ['with null for a number', `{ ${nested('null')} }`],
    ['with a variable that is null', `query($n: Int) { ${nested('$n')} }`],
    ['with numbers left out', `{ ${aliases(20, nested('100').replace('(first: 100)', '')).join(' ')} }`],
    [
      'by introspection',
      `{ ${aliases(300, '__schema { types { name fields { name type { name } } } }').join(' ')} }`,
    ],
    [
      'by nested lists',
      `{ deployments(status: ${'['.repeat(4_000)}${']'.repeat(4_000)}) { edges { cursor } } }`,
    ],
    ['by nested objects', `mutation { deploy(input: ${'{a:'.repeat(3_000)}1${'}'.repeat(3_000)}) { id } }`],
    ['by nested selections', `${'{a'.repeat(4_000)}${'}'.repeat(4_000)}`],
    ['by fields with the same name', `{ ${'me { name } '.repeat(1_500)} }`],
    ['by nested types', `query($a: ${'['.repeat(4_000)}Int${']'.repeat(4_000)}) { __typename }`],
  ])('%s', async (_, query) => {
    const answer = await send(JSON.stringify({ query }))
    expect(answer).toMatchObject({ status: 400, codes: ['TOO_LARGE'] })
    expect(answer.bytes).toBeLessThan(MAX_ANSWER_BYTES)
    expect(await sendOverSocket(JSON.stringify({ query }))).toEqual(['TOO_LARGE'])
    const params = new URLSearchParams({ query })
    // Node limits the head of a request to 16 kB.
    if (String(params).length > 10_000) return
    expect(await send(params)).toMatchObject({ status: 400, codes: ['TOO_LARGE'] })
  })

  test('and errors do not repeat their contents', async () => {
    const query = `{ ${aliases(200, `deployments(first: "${'x'.repeat(400)}") { nope }`).join(' ')} }`
    const answer = await send(JSON.stringify({ query }))
    expect(answer.bytes).toBeLessThan(MAX_ANSWER_BYTES)
    expect(new Set(answer.codes)).toEqual(new Set(['GRAPHQL_VALIDATION_FAILED']))
    const one = await send(
      JSON.stringify({ query: `{ deployments(first: "${'x'.repeat(90_000)}") { edges { cursor } } }` }),
    )
    expect(one.bytes).toBeLessThan(5_000)
  })

  test('and errors do not list all locations', async () => {
    const query = `{ deployments(${'a: 1 '.repeat(3_000)}) { edges { cursor } } }`
    expect((await send(JSON.stringify({ query }))).bytes).toBeLessThan(MAX_ANSWER_BYTES)
  })

  test('and many of them at once do not block other requests', async () => {
    const query = `{ ${'me { name } '.repeat(1_500)} }`
    await send(JSON.stringify({ query }))
    const text = JSON.stringify({ query })
    const head = `POST /graphql HTTP/1.1\r\nHost: ${new URL(server.url).host}\r\nContent-Type: application/json\r\nContent-Length: ${text.length}\r\n\r\n`
    const client = connect(Number(new URL(server.url).port), '127.0.0.1').setEncoding('utf8')
    let answers = ''
    client.on('data', (data) => {
      answers += data
    })
    const remaining = () => 16 - (answers.match(/TOO_LARGE/g) ?? []).length
    // The maximum of a connection, in one write.
    client.write((head + text).repeat(16))
    let otherRequests = 0
    for (; remaining() > 0; otherRequests++) {
      expect((await fetch(`${server.url}/health/live`)).status).toBe(200)
    }
    client.destroy()
    // Other requests run every few turns of the event loop, rather than after all of them.
    expect(otherRequests).toBeGreaterThan(3)
  })

  test('but not the queries of tools and the page', async () => {
    const query = getIntrospectionQuery({ specifiedByUrl: true, inputValueDeprecation: true, oneOf: true })
    expect(await send(JSON.stringify({ query }))).toMatchObject({ status: 200, codes: [] })
    const brackets = '{ deployments(repo: "((((((((") { edges { cursor } } } # '.concat('{'.repeat(500))
    expect(await send(JSON.stringify({ query: brackets }))).toMatchObject({ status: 200, codes: [] })
  })
})

test('each deployment of a page has its own events, however they are queried', async () => {
  const viewer = new Viewer(server.socketUrl)
  await viewer.connected()
  viewer.follow()
  const ids: string[] = []
  for (const index of numbers(5)) {
    const { data } = await server.request<DeployResult>(DEPLOY_MUTATION, {
      input: deployInput({ repo: `page-${index}` }),
    })
    ids.push(data.deploy.id)
    await viewer.waitForEnd(data.deploy.id)
  }
  await viewer.close()
  const { data } = await server.request<{
    deployments: { edges: { node: Record<string, unknown> & { id: string } }[] }
  }>(`{ deployments(first: 5) { edges { node {
    id some: events(after: 1, first: 2) { sequence deploymentId }
    last: events(after: 4, first: 1) { sequence deployment { events(first: null) { deploymentId } } } none: events(first: 0) { text } } } } }`)
  for (const { node } of data.deployments.edges) {
    expect(node).toEqual({
      id: node.id,
      some: [2, 3].map((sequence) => ({ sequence, deploymentId: node.id })),
      last: [{ sequence: 5, deployment: { events: numbers(5).map(() => ({ deploymentId: node.id })) } }],
      none: [],
    })
  }
  expect(data.deployments.edges.map(({ node }) => node.id)).toEqual(ids.toReversed())
})

describe('the operation', () => {
  const request = (query: string, operationName: string) => JSON.stringify({ query, operationName })

  test('with an empty name is the only one, over HTTP and over the socket, in any order', async () => {
    for (const query of ['{ __typename }', 'query A { __typename }']) {
      expect(await send(request(query, ''))).toMatchObject({ status: 200, codes: [] })
      expect(await send(JSON.stringify({ query }))).toMatchObject({ status: 200, codes: [] })
    }
    const viewer = new Viewer(server.socketUrl)
    await viewer.connected()
    viewer.subscribe({ query: 'subscription { deploymentStatus { cursor } }', operationName: '' })
    await viewer.close()
    expect(viewer.errors).toEqual([])
  })

  test.each([
    ['{ __typename }', 'B'],
    ['query A { __typename }', 'B'],
    ['query A { __typename } query C { __typename }', ''],
    ['mutation { cancelDeployment(id: "x") { id } }', 'B'],
    ['subscription { deploymentStatus { cursor } }', 'B'],
  ])('of %s named %j is not found, which is a client error', async (query, operationName) => {
    expect(await send(request(query, operationName))).toMatchObject({
      status: 400,
      codes: ['OPERATION_RESOLUTION_FAILURE'],
    })
    expect(await sendOverSocket(request(query, operationName))).toEqual(['OPERATION_RESOLUTION_FAILURE'])
    expect(server.log).not.toContain('"level":"error"')
  })
})

describe('GET /graphql', () => {
  test('answers a query', async () => {
    const query = 'query($first: Int) { deployments(first: $first) { edges { cursor } } }'
    const answer = await send(new URLSearchParams({ query, variables: '{"first":1}', operationName: '' }))
    expect(answer).toMatchObject({ status: 200, codes: [] })
    expect(answer.headers.get('cache-control')).toBe('no-store')
  })

  test('refuses a mutation and a subscription', async () => {
    const mutation = await send(
      new URLSearchParams({ query: 'mutation { cancelDeployment(id: "x") { id } }' }),
    )
    expect(mutation).toMatchObject({ status: 405, codes: ['BAD_REQUEST'] })
    expect(mutation.headers.get('allow')).toBe('POST')
    const subscription = await send(
      new URLSearchParams({ query: 'subscription { deploymentStatus { cursor } }' }),
    )
    expect(subscription).toMatchObject({ status: 405 })
  })

  test.each(['cross-site', 'same-site'])('is refused from a %s page', async (site) => {
    const headers = { 'sec-fetch-site': site }
    const response = await fetch(`${server.url}/graphql?query={__typename}`, { headers })
    expect(response.status).toBe(403)
    expect((await fetch(`${server.url}/`, { headers })).status).toBe(200)
  })
})
