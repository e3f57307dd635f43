import { mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { git } from './support/github/git.ts'
import { DEPLOY_MUTATION, type DeployResult, deployInput } from './support/inputs.ts'
import { TestServer } from './support/test-server.ts'
import { Viewer } from './support/viewer.ts'

let server: TestServer
let folder: string

beforeAll(async () => {
  server = await TestServer.start()
  folder = await mkdtemp(join(tmpdir(), 'shipcast-clones-'))
})

afterAll(async () => {
  await server.stop()
  await server.removeData()
  await rm(folder, { recursive: true, force: true })
})

async function deploy(overrides: Record<string, unknown> = {}, headers: Record<string, string> = {}) {
  const answer = await server.request<DeployResult>(
    DEPLOY_MUTATION,
    { input: deployInput(overrides) },
    headers,
  )
  if (answer.errors) throw new Error(JSON.stringify(answer.errors))
  return answer.data.deploy
}

test('deploys a repository that can be cloned, and reports each step to every subscriber in order', async () => {
  const viewers = [new Viewer(server.socketUrl), new Viewer(server.socketUrl)]
  for (const viewer of viewers) {
    await viewer.connected()
    viewer.follow()
  }

  const coAuthor = 'Co-authored-by: Mona <mona@example.com>'
  const { id } = await deploy({ commitMessage: `Add the demo\n\n${coAuthor}\n` })

  for (const viewer of viewers) {
    const events = await viewer.waitForEnd(id)
    expect(events.map(({ sequence, step, status, text }) => [sequence, step, status, text])).toEqual([
      [1, 'DEPLOY', 'RUNNING', 'Creating org'],
      [2, 'CREATE_ORG', 'RUNNING', 'Creating repo'],
      [3, 'CREATE_REPO', 'RUNNING', 'Pushing contents'],
      [4, 'PUSH_CONTENTS', 'RUNNING', 'Done!'],
      [5, 'DONE', 'SUCCEEDED', 'Done!'],
    ])
    expect(events.map((event) => event.deployment.sequence)).toEqual([1, 2, 3, 4, 5])
    const { cloneUrl, commitSha } = events[4]!.deployment
    const clone = await mkdtemp(join(folder, 'clone-'))
    await git('/', 'clone', '-q', cloneUrl!, clone)
    expect((await git('/', '-C', clone, 'rev-parse', 'HEAD')).trim()).toBe(commitSha)
    expect(await readFile(join(clone, 'README.md'), 'utf8')).toBe('# Demo\n')
    const trailers = await git('/', '-C', clone, 'log', '-1', '--format=%(trailers)')
    expect(trailers.trim()).toBe(`${coAuthor}\nDeployment-Id: ${id}`)
    await viewer.close()
  }
})

test('stores bytes and file modes exactly as sent', async () => {
  const files = [
    { path: '.gitattributes', content: '* text=auto\n' },
    { path: 'crlf.txt', content: 'one\r\ntwo\r\n' },
    { path: 'empty', content: '' },
    {
      path: 'binary.bin',
      content: Buffer.from([0, 255, 1, 254, 10, 13]).toString('base64'),
      encoding: 'BASE64',
    },
    { path: 'bin/run.sh', content: '#!/bin/sh\necho hi\n', executable: true },
    { path: 'odd/ä ö "quoted" \'too\'.txt', content: 'odd\n' },
    { path: 'odd/é-NFD/🚀.txt', content: '🚀\n' },
    { path: '-dash', content: 'dash\n' },
    { path: 'a', content: '1' },
    { path: 'a.b', content: '2' },
    { path: 'a0/b', content: '3' },
  ]
  const viewer = new Viewer(server.socketUrl)
  const { id } = await deploy({ contents: { files } })
  viewer.follow({ deploymentId: id })
  const last = (await viewer.waitForEnd(id)).at(-1)
  await viewer.close()
  const bare = join(await mkdtemp(join(folder, 'bare-')), 'x.git')
  await git('/', 'clone', '-q', '--bare', last!.deployment.cloneUrl!, bare)

  expect(await git('/', '-C', bare, 'fsck', '--full', '--strict')).toBe('')
  const listed = (await git('/', '-C', bare, 'ls-tree', '-r', '-z', 'HEAD')).split('\0').filter(Boolean)
  expect(listed).toHaveLength(files.length)
  for (const file of files) {
    const expected = Buffer.from(file.content, file.encoding === 'BASE64' ? 'base64' : 'utf8')
    const line = listed.find((entry) => entry.endsWith(`\t${file.path}`))
    expect(line?.slice(0, 6)).toBe(file.executable ? '100755' : '100644')
    const blob = await git('/', '-C', bare, 'cat-file', 'blob', line!.split(/[ \t]/)[2]!)
    if (file.encoding !== 'BASE64') expect(Buffer.from(blob)).toEqual(expected)
    expect(Number(await git('/', '-C', bare, 'cat-file', '-s', line!.split(/[ \t]/)[2]!))).toBe(
      expected.length,
    )
  }
})

test('deploys a template', async () => {
  const { data } = await server.request<{ templates: { name: string; fileCount: number }[] }>(
    '{ templates { name title description fileCount variables { name description default required } } }',
  )
  expect(data.templates.map(({ name }) => name)).toEqual(['hello-world', 'node-service', 'static-site'])
  const viewer = new Viewer(server.socketUrl)
  const { id } = await deploy({ contents: { template: { name: 'hello-world' } } })
  viewer.follow({ deploymentId: id })
  const last = (await viewer.waitForEnd(id)).at(-1)
  await viewer.close()
  const clone = await mkdtemp(join(folder, 'template-'))
  await git('/', 'clone', '-q', last!.deployment.cloneUrl!, clone)
  expect((await stat(join(clone, 'README.md'))).size).toBeGreaterThan(0)
})

test('warns about names that other systems cannot check out, in the response and every later event', async () => {
  const paths = ['aux.c', 'docs/a?.md', 'README', 'readme', 'trailing.']
  const files = paths.map((path) => ({ path, content: path }))
  const request = deployInput({
    idempotencyKey: `commande n° 42 ✓ ${crypto.randomUUID()}`,
    contents: { files },
  })
  const mutation = 'mutation ($input: DeployInput!) { deploy(input: $input) { id warnings warningCount } }'
  type Warned = { id: string; warnings: string[]; warningCount: number }
  const send = async () =>
    (await server.request<{ deploy: Warned }>(mutation, { input: request })).data.deploy
  const first = await send()
  expect(first.warningCount).toBe(4)
  const warned = [
    /^"aux\.c" .*Windows/,
    /^"docs\/a\?\.md" .*Windows/,
    /^"README" and "readme" /,
    /^"trailing\." /,
  ]
  expect(first.warnings).toEqual(warned.map((pattern) => expect.stringMatching(pattern)))

  const viewer = new Viewer(server.socketUrl)
  viewer.follow({ deploymentId: first.id })
  const { cloneUrl } = (await viewer.waitForEnd(first.id)).at(-1)!.deployment
  await viewer.close()
  expect(await send()).toEqual(first)
  const { data } = await server.request<{ deployment: Warned & { events: { deployment: Warned }[] } }>(
    `query ($id: ID!) { deployment(id: $id) {
       id warnings warningCount events { deployment { id warnings warningCount } } } }`,
    { id: first.id },
  )
  const { events, ...now } = data.deployment
  expect(now).toEqual(first)
  expect(events).toHaveLength(5)
  for (const { deployment } of events) expect(deployment).toEqual(first)
  const bare = join(await mkdtemp(join(folder, 'warned-')), 'x.git')
  await git('/', 'clone', '-q', '--bare', cloneUrl!, bare)
  expect(await git('/', '-C', bare, 'fsck', '--full', '--strict')).toBe('')
})

describe('one request creates one deployment', () => {
  test('for fifty concurrent requests with one idempotency key', async () => {
    const same = deployInput({ idempotencyKey: crypto.randomUUID() })
    const answers = await Promise.all(
      Array.from({ length: 50 }, () => server.request<DeployResult>(DEPLOY_MUTATION, { input: same })),
    )
    expect(answers.flatMap(({ errors }) => errors ?? [])).toEqual([])
    expect(new Set(answers.map(({ data }) => data.deploy.id)).size).toBe(1)
    const { data } = await server.request<{ deployments: { edges: unknown[] } }>(
      'query ($repo: String) { deployments(repo: $repo) { edges { node { id } } } }',
      { repo: same.repo },
    )
    expect(data.deployments.edges).toHaveLength(1)
  })

  test('for an idempotency key: with another input, it is a conflict that names the deployment', async () => {
    const idempotencyKey = crypto.randomUUID()
    const first = await deploy({ idempotencyKey })
    const { errors } = await server.request(DEPLOY_MUTATION, { input: deployInput({ idempotencyKey }) })
    expect(errors?.[0]?.extensions).toMatchObject({ code: 'CONFLICT', deploymentId: first.id })
  })

  test('for the same input with files in another order or explicit defaults', async () => {
    const idempotencyKey = crypto.randomUUID()
    const files = [
      { path: 'b', content: '2' },
      { path: 'a', content: '1' },
    ]
    const repo = `same-${crypto.randomUUID().slice(0, 8)}`
    const first = await deploy({ repo, idempotencyKey, contents: { files } })
    const second = await deploy({
      repo,
      idempotencyKey,
      branch: 'main',
      contents: { files: files.toReversed() },
    })
    expect(second.id).toBe(first.id)
  })

  test('at a time per repository, whatever the case of its name', async () => {
    const repo = `Twice-${crypto.randomUUID().slice(0, 8)}`
    const answers = await Promise.all(
      [repo, repo.toUpperCase(), repo.toLowerCase()].map((name) =>
        server.request<DeployResult>(DEPLOY_MUTATION, { input: deployInput({ repo: name, org: 'Acme' }) }),
      ),
    )
    const accepted = answers.filter(({ errors }) => !errors)
    expect(accepted.length).toBeGreaterThanOrEqual(1)
    for (const { errors } of answers.filter((answer) => answer.errors)) {
      expect(errors?.[0]?.extensions.code).toBe('CONFLICT')
    }
  })
})

describe('bad input', () => {
  test('is reported with every error at once, and nothing is stored', async () => {
    const { data, errors } = await server.request(DEPLOY_MUTATION, {
      input: {
        org: '-acme-',
        repo: '..',
        branch: 'a..b',
        commitMessage: ' ',
        description: 'a\u0000b',
        idempotencyKey: '',
        contents: {
          files: [
            { path: '/etc/passwd', content: '' },
            { path: '../x', content: '' },
            { path: 'x/.GiT/config', content: '' },
            { path: 'a//b', content: '' },
            { path: 'tab\there', content: '' },
            { path: 'twice', content: '' },
            { path: 'twice', content: '' },
            { path: 'folder', content: '' },
            { path: 'folder/file', content: '' },
            { path: 'bad.bin', content: '%%%', encoding: 'BASE64' },
            { path: 'lone.txt', content: '\ud800' },
          ],
        },
      },
    })
    expect(data).toBeNull()
    expect(errors?.[0]?.extensions.code).toBe('BAD_USER_INPUT')
    const paths = (errors?.[0]?.extensions.fields as { path: string }[]).map(({ path }) => path)
    for (const path of [
      'input.org',
      'input.repo',
      'input.branch',
      'input.commitMessage',
      'input.description',
      'input.idempotencyKey',
      ...[0, 1, 2, 3, 4, 6, 8].map((index) => `input.contents.files[${index}].path`),
      'input.contents.files[9].content',
      'input.contents.files[10].content',
    ]) {
      expect(paths).toContain(path)
    }
    const { data: stored } = await server.request<{ deployments: { edges: unknown[] } }>(
      '{ deployments(org: "-acme-") { edges { node { id } } } }',
    )
    expect(stored.deployments.edges).toEqual([])
  })

  test('that does not match the schema is reported with its path', async () => {
    const { errors } = await server.request(DEPLOY_MUTATION, {
      input: { org: 'acme', repo: 'x', contents: { files: [{ path: 3, content: 'x' }] } },
    })
    expect(errors?.[0]?.extensions).toMatchObject({
      code: 'BAD_USER_INPUT',
      fields: [{ path: 'input.contents.files[0].path' }],
    })
  })

  test('with both a template and files is rejected', async () => {
    const { errors } = await server.request(DEPLOY_MUTATION, {
      input: deployInput({
        contents: { files: [{ path: 'a', content: '' }], template: { name: 'hello-world' } },
      }),
    })
    expect(errors?.[0]?.extensions.code).toBe('BAD_USER_INPUT')
  })

  test('over 32 MiB is TOO_LARGE, and a body that is not JSON is BAD_USER_INPUT', async () => {
    const { errors } = await server.request(DEPLOY_MUTATION, {
      input: deployInput({ contents: { files: [{ path: 'big', content: 'x'.repeat(33 * 1024 * 1024) }] } }),
    })
    expect(errors?.[0]?.extensions.code).toBe('TOO_LARGE')
    const response = await fetch(`${server.url}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"query":',
    })
    expect(response.status).toBe(400)
    expect(await response.json()).toMatchObject({ errors: [{ extensions: { code: 'BAD_USER_INPUT' } }] })
  })

  test('with an unknown deployment is NOT_FOUND in a mutation and null in a query', async () => {
    for (const id of ['nonsense', crypto.randomUUID()]) {
      const { errors } = await server.request('mutation ($id: ID!) { cancelDeployment(id: $id) { id } }', {
        id,
      })
      expect(errors?.[0]?.extensions.code).toBe('NOT_FOUND')
      const retry = await server.request('mutation ($id: ID!) { retryDeployment(id: $id) { id } }', { id })
      expect(retry.errors?.[0]?.extensions.code).toBe('NOT_FOUND')
      const { data } = await server.request('query ($id: ID!) { deployment(id: $id) { id } }', { id })
      expect(data).toEqual({ deployment: null })
    }
  })

  test('with a document that is too deep, too costly or too long is TOO_LARGE, over HTTP and the socket', async () => {
    const deep = `{ deployments { edges { node { ${'events { deployment { '.repeat(5)} id ${'} }'.repeat(5)} } } } }`
    const costly = '{ deployments(first: 100) { edges { node { events(first: 1000) { cursor text } } } } }'
    const long = `{ templates { name } } #${'x'.repeat(100_000)}`
    const viewer = new Viewer(server.socketUrl)
    const many = `{ ${'templates { name } '.repeat(2_600)} }`
    for (const query of [deep, costly, long, many]) {
      const response = await post({ query })
      expect(response.status).toBe(400)
      const { errors } = (await response.json()) as { errors: { extensions: object }[] }
      expect(errors[0]?.extensions).toEqual({ code: 'TOO_LARGE', fields: [] })
      await expect(viewer.execute(query, {})).rejects.toMatchObject([{ extensions: { code: 'TOO_LARGE' } }])
    }
    await viewer.close()
  })

  test.each([
    ['character set', { 'content-type': 'application/json; charset=latin1' }],
    ['compression', { 'content-type': 'application/json', 'content-encoding': 'rot13' }],
  ])('with an unknown %s is BAD_USER_INPUT', async (_, headers) => {
    const response = await fetch(`${server.url}/graphql`, { method: 'POST', headers, body: '{}' })
    expect(response.status).toBe(400)
    expect(await response.json()).toMatchObject({ errors: [{ extensions: { code: 'BAD_USER_INPUT' } }] })
  })

  test('is not logged as an error', async () => {
    await server.request(DEPLOY_MUTATION, { input: deployInput({ org: '-' }) })
    const viewer = new Viewer(server.socketUrl)
    await expect(viewer.execute(DEPLOY_MUTATION, { input: deployInput({ org: '-' }) })).rejects.toThrow()
    viewer.follow({ after: 'nonsense' })
    await viewer.waitUntil(() => viewer.errors.length > 0)
    await viewer.close()
    expect(server.log).not.toContain('"level":"error"')
  })

  test('with another method is 405 and with another content type 400, with advice', async () => {
    for (const method of ['PUT', 'PATCH', 'DELETE', 'OPTIONS']) {
      const response = await fetch(`${server.url}/graphql`, { method })
      expect([response.status, response.headers.get('allow')]).toEqual([405, 'GET, POST'])
      expect(await response.json()).toMatchObject({ errors: [{ extensions: { code: 'BAD_REQUEST' } }] })
    }
    const response = await fetch(`${server.url}/graphql`, {
      method: 'POST',
      body: '{"query":"{ me { name } }"}',
    })
    expect(response.status).toBe(400)
    expect(await response.json()).toMatchObject({
      errors: [{ message: expect.stringContaining('application/json'), extensions: { code: 'BAD_REQUEST' } }],
    })
  })

  test('with a subscription over HTTP is BAD_REQUEST, with a hint about the WebSocket', async () => {
    const response = await post({ query: 'subscription { deploymentStatus { cursor } }' })
    expect(response.status).toBe(400)
    expect(await response.json()).toMatchObject({
      errors: [
        { message: expect.stringContaining('graphql-transport-ws'), extensions: { code: 'BAD_REQUEST' } },
      ],
    })
  })
})

function post(body: object): Promise<Response> {
  return fetch(`${server.url}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
}

test('finds nothing for impossible names', async () => {
  for (const name of ['', 'nö', 'a\u0000']) {
    const { data } = await server.request(
      'query ($name: String) { org: deployments(org: $name) { edges { cursor } } repo: deployments(repo: $name) { edges { cursor } } }',
      { name },
    )
    expect(data).toEqual({ org: { edges: [] }, repo: { edges: [] } })
  }
})

test('lists deployments newest first, page by page', async () => {
  const org = `list-${crypto.randomUUID().slice(0, 8)}`
  const ids: string[] = []
  for (let i = 0; i < 5; i++) ids.unshift((await deploy({ org })).id)
  const seen: string[] = []
  let after: string | null = null
  for (;;) {
    const { data }: { data: { deployments: Page } } = await server.request(
      `query ($org: String, $after: String) {
        deployments(first: 2, after: $after, org: $org) { edges { cursor node { id } } pageInfo { hasNextPage endCursor } }
      }`,
      { org: org.toUpperCase(), after },
    )
    seen.push(...data.deployments.edges.map(({ node }) => node.id))
    if (!data.deployments.pageInfo.hasNextPage) break
    after = data.deployments.pageInfo.endCursor
  }
  expect(seen).toEqual(ids)
})

interface Page {
  edges: { node: { id: string } }[]
  pageInfo: { hasNextPage: boolean; endCursor: string }
}

describe('requests from other sites', () => {
  test('are rejected over HTTP and the socket', async () => {
    const response = await fetch(`${server.url}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', origin: 'https://evil.example' },
      body: JSON.stringify({ query: '{ templates { name } }' }),
    })
    expect(response.status).toBe(403)
    const upgrade = await fetch(`${server.url}/graphql`, {
      headers: { origin: 'https://evil.example', 'sec-fetch-site': 'cross-site' },
    })
    expect(upgrade.status).toBe(403)
  })

  test('cannot send a mutation with a form', async () => {
    const response = await fetch(`${server.url}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'text/plain' },
      body: JSON.stringify({ query: '{ templates { name } }' }),
    })
    expect(response.ok).toBe(false)
  })
})

test('answers health checks under any host name or none, and nothing else', async () => {
  async function ask(line: string, host = ''): Promise<string> {
    const socket = connect(server.port, '127.0.0.1').setEncoding('utf8')
    // HTTP/1.0: the server closes the connection after its response.
    socket.write(`${line}\r\n${host}\r\n`)
    return (await socket.toArray()).join('')
  }
  for (const host of ['', 'Host: shipcast-node-1\r\n', 'Host: evil.example\r\n']) {
    for (const path of ['/health/ready', '/health/live']) {
      expect(await ask(`GET ${path} HTTP/1.0`, host)).toContain('"status":"ok"')
      expect(await ask(`HEAD ${path} HTTP/1.0`, host)).toMatch(/^HTTP\/1\.1 200 /)
      expect(await ask(`POST ${path} HTTP/1.0`, host)).toMatch(/^HTTP\/1\.1 403 /)
    }
    for (const path of [
      '/',
      '/health',
      '/health/../index.html',
      '/health/live/../../graphql',
      '/metrics',
      '/graphql',
    ]) {
      expect(await ask(`GET ${path} HTTP/1.0`, host)).toMatch(/^HTTP\/1\.1 403 /)
    }
  }
})

test('reports ready while the database responds and the runner claims work', async () => {
  const live = await fetch(`${server.url}/health/live`)
  expect([live.status, await live.json()]).toEqual([200, { status: 'ok' }])
  const ready = await fetch(`${server.url}/health/ready`)
  expect([ready.status, await ready.json()]).toEqual([
    200,
    { status: 'ok', checks: { database: 'ok', runner: 'ok' } },
  ])
})
