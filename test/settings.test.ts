import { spawnSync } from 'node:child_process'
import { cp, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { createDataFolder, removeDataFolder } from './support/data-folder.ts'
import { createTestDatabase } from './support/test-database.ts'
import { TestServer } from './support/test-server.ts'

let folder: Awaited<ReturnType<typeof createDataFolder>>

beforeAll(async () => {
  folder = await createDataFolder()
})

afterAll(() => removeDataFolder(folder.path))

test.each([
  ['HOST', 'no host'],
  ['HOST', '203.0.113.7'],
  ['PORT', '0'],
  ['PUBLIC_URL', 'shipcast'],
  ['DATA_DIR', '/dev/null'],
  ['DATA_DIR', '/dev/null/folder'],
  ...(process.platform === 'linux' ? [['DATA_DIR', '/proc/shipcast/folder'] as const] : []),
  ['DATABASE_URL', 'mysql://localhost/shipcast'],
  ['DATABASE_URL', 'postgres://u:secret@127.0.0.1:port/shipcast'],
  ['DATABASE_URL', 'postgres://u:secret@127.0.0.1:1/shipcast'],
  ['FORGE', 'gitlab'],
  ['GITHUB_TOKEN', 'secret'],
  ['TEMPLATES_DIR', '/nowhere'],
  ['DEPLOY_CONCURRENCY', '0'],
  ['LEASE_MS', '1'],
  ['LOG_LEVEL', 'loud'],
])('%s=%s stops the start with a message that names it', async (name, value) => {
  const start = TestServer.start({ dataDir: folder.path, env: { [name]: value } })
  const error = await start.then(
    () => undefined,
    (error: Error) => error,
  )
  expect(error?.message).toContain(name)
  expect(error?.message).not.toContain('secret@')
  expect(error?.message).not.toMatch(/^ +at |"level"/m)
})

test('an invalid DATA_DIR also stops the start if only the local forge uses it', async () => {
  const database = await createTestDatabase()
  const start = TestServer.start({
    dataDir: '/dev/null/folder',
    env: { DATABASE_URL: database.url, FORGE: 'local' },
  })
  await expect(start).rejects.toThrow(/^The local forge cannot write to .* with DATA_DIR/m)
  await database.drop()
})

test('a port in use is reported, with the suggestion of another one', async () => {
  const first = await TestServer.start({ dataDir: folder.path })
  const second = TestServer.start({ dataDir: folder.path, port: first.port })
  await expect(second).rejects.toThrow(
    `PORT ${first.port} is in use. Set another, for example PORT=${first.port + 1}`,
  )
  await first.stop()
})

const ROOT = fileURLToPath(new URL('..', import.meta.url))

function run(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: ROOT, encoding: 'utf8' })
  return { status, output: stdout + stderr }
}

test.each(['dist/main.js', 'dist/cli/token.js'])(
  '%s on an older Node reports which version to use',
  (program) => {
    const older = `Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.19.0' } })`
    const { status, output } = run('--import', `data:text/javascript,${encodeURIComponent(older)}`, program)
    expect(status).toBe(1)
    expect(output).toMatch(/^Shipcast requires Node 24 or newer; this is 20\.19\.0\. .*\n$/)
  },
)

test('npm start and npm run token without a build explain how to build', async () => {
  const scripts = join(folder.path, 'unbuilt', 'scripts')
  await mkdir(scripts, { recursive: true })
  await cp(join(ROOT, 'scripts/check-build.mjs'), join(scripts, 'check-build.mjs'))
  const { status, output } = run(join(scripts, 'check-build.mjs'))
  expect([status, output]).toEqual([
    1,
    expect.stringMatching(/^Shipcast has not been built yet\. .*npm run up.*\n$/),
  ])
  await writeFile(join(scripts, '../node_modules'), '')
  await mkdir(join(scripts, '../dist/cli'), { recursive: true })
  for (const name of ['main.js', 'cli/token.js']) await writeFile(join(scripts, '../dist', name), '')
  expect(run(join(scripts, 'check-build.mjs'))).toEqual({ status: 0, output: '' })
})
