import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, expect, test } from '@jest/globals'
import { TemplateCatalog } from './template-catalog.ts'

const TEMPLATES = join(import.meta.dirname, '../../../templates')
/** Whatever quotes somebody puts into a description, what they get has to run. */
const BUILT_INS = {
  org: 'octo-org',
  repo: 'my.repo',
  description: `It's a "test" of <b> & \\ \${x} $(y)`,
  branch: `feature/it's"x"`,
}

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'shipcast-product-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

/** Renders into the folder, as a clone of the repository would have it. */
async function render(name: string, given: Record<string, string> = {}): Promise<string[]> {
  const catalog = await TemplateCatalog.load(TEMPLATES)
  const variables = Object.entries(given).map(([name, value]) => ({ name, value }))
  const rendered = await catalog.render(name, variables, BUILT_INS, new AbortController().signal)
  if ('faults' in rendered) throw new Error(JSON.stringify(rendered.faults))
  for (const { path, content, executable } of rendered.files) {
    await mkdir(dirname(join(folder, path)), { recursive: true })
    await writeFile(join(folder, path), content)
    await chmod(join(folder, path), executable ? 0o755 : 0o644)
  }
  return rendered.files.map((file) => file.path)
}

const text = (path: string) => readFile(join(folder, path), 'utf8')

/** Without what this test run itself tells its child processes (node:test would take itself for a part of it). */
const env = { PATH: `${dirname(process.execPath)}:${process.env.PATH}`, HOME: tmpdir() }

test('there are three, each with a default for all that it asks', async () => {
  const list = (await TemplateCatalog.load(TEMPLATES)).list()
  expect(list.map((template) => template.name)).toEqual(['hello-world', 'node-service', 'static-site'])
  for (const { variables } of list) {
    for (const { default: byDefault } of variables) expect(byDefault).not.toBeNull()
  }
})

test.each(['hello-world', 'node-service', 'static-site'])('%s leaves no tag of ours behind', async (name) => {
  for (const path of await render(name)) expect(await text(path)).not.toMatch(/(?<!\$)\{\{/)
})

test('hello-world greets', async () => {
  await render('hello-world')
  expect(execFileSync(join(folder, 'hello.sh'), { env, encoding: 'utf8' })).toBe('Hello, world!\n')
  await render('hello-world', { greeting: `It's "$(me)" \`here\`` })
  expect(execFileSync(join(folder, 'hello.sh'), ['Ada'], { env, cwd: '/', encoding: 'utf8' })).toBe(
    `It's "$(me)" \`here\`\nThis one is for Ada.\n`,
  )
})

test('node-service passes its own tests', async () => {
  await render('node-service')
  const output = execFileSync(process.execPath, ['--test', '--test-reporter=tap'], {
    cwd: folder,
    env,
    encoding: 'utf8',
  })
  expect(output).toMatch(/^# pass 7$/m)
  expect(output).toMatch(/^# fail 0$/m)
  const { name, description, scripts } = JSON.parse(await text('package.json'))
  expect({ name, description, scripts }).toMatchObject({
    name: 'service',
    description: BUILT_INS.description,
    scripts: { start: 'node src/main.js', test: 'node --test' },
  })
})

test('node-service starts on its port, says that it is healthy, and stops when told to', async () => {
  const port = await freePort()
  await render('node-service', { port: String(port) })
  const service = spawn(process.execPath, ['src/main.js'], {
    cwd: folder,
    env: { ...env, HOST: '127.0.0.1' },
  })
  const ended = once(service, 'exit')
  try {
    const [line] = await once(createInterface(service.stdout), 'line')
    expect(line).toBe(`Listening on port ${port}`)
    const response = await fetch(`http://127.0.0.1:${port}/health`)
    expect([response.status, await response.json()]).toEqual([200, { status: 'ok' }])
    service.kill('SIGTERM')
    expect(await ended).toEqual([0, null])
  } finally {
    service.kill('SIGKILL')
    await ended
  }
})

test('node-service says what to do when its port is taken', async () => {
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  try {
    await render('node-service')
    const service = spawn(process.execPath, ['src/main.js'], {
      cwd: folder,
      env: { ...env, HOST: '127.0.0.1', PORT: String(portOf(taken)) },
    })
    const [line] = await once(createInterface(service.stderr), 'line')
    expect(line).toMatch(/^Cannot listen on port \d+: .*EADDRINUSE.*Set PORT to a free one\.$/)
    expect(await once(service, 'exit')).toEqual([1, null])
  } finally {
    taken.close()
  }
})

test('static-site links to nothing that is not there, and loads nothing from elsewhere', async () => {
  const title = `Tom & "Jerry" <3`
  const paths = await render('static-site', { title })
  for (const page of ['site/index.html', 'site/404.html']) {
    const html = await text(page)
    expect(html).toMatch(/^<!doctype html>\n<html lang="en">/)
    expect(html).toContain('Tom &amp; &quot;Jerry&quot; &lt;3')
    const ids = new Set([...html.matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id))
    for (const [, target = ''] of html.matchAll(/\s(?:href|src)="([^"]*)"/g)) {
      if (target.startsWith('#')) expect(ids).toContain(target.slice(1))
      else expect(paths).toContain(`site/${target}`)
    }
    for (const [, id] of html.matchAll(/\saria-labelledby="([^"]+)"/g)) expect(ids).toContain(id)
    expect(html).not.toMatch(/https?:/)
    expect(opened(html)).toEqual([])
  }
  const css = await text('site/style.css')
  expect(css).toContain('--accent: #2f6feb;')
  expect(css).not.toMatch(/url\(|@import/)
})

test("static-site's workflow names the branch and keeps GitHub's own braces", async () => {
  await render('static-site')
  const workflow = await text('.github/workflows/pages.yml')
  expect(workflow).toContain(`branches: ["feature/it's\\"x\\""]`)
  expect(workflow).toContain(`url: \${{ steps.deployment.outputs.page_url }}`)
  expect(workflow).toMatch(/path: site\n/)
  expect(existsSync(join(folder, 'site/index.html'))).toBe(true)
})

const VOID = new Set(['meta', 'link', 'br', 'img', 'input', 'hr'])

/** The elements that are still open at the end, or were closed out of turn. */
function opened(html: string): string[] {
  const open: string[] = []
  for (const [, slash, name = ''] of html.matchAll(/<(\/?)([a-z][a-z0-9]*)\b[^>]*>/g)) {
    if (slash === '/') {
      if (open.pop() !== name) return [...open, `</${name}>`]
    } else if (!VOID.has(name)) open.push(name)
  }
  return open
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const port = portOf(server)
  server.close()
  await once(server, 'close')
  return port
}

function portOf(server: ReturnType<typeof createServer>): number {
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('not listening on a port')
  return address.port
}
