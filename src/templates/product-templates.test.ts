import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import { parse as parseYaml } from 'yaml'
import { TemplateCatalog } from './template-catalog.ts'

const TEMPLATES = join(import.meta.dirname, '../../templates')
/** With special characters: the rendered files must still work. */
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

/** Renders into the folder, like a clone of the repository. */
async function render(
  name: string,
  given: Record<string, string> = {},
  builtIns = BUILT_INS,
  into = folder,
): Promise<string[]> {
  const catalog = await TemplateCatalog.load(TEMPLATES)
  const variables = Object.entries(given).map(([name, value]) => ({ name, value }))
  const rendered = await catalog.render(name, variables, builtIns, new AbortController().signal)
  if ('errors' in rendered) throw new Error(JSON.stringify(rendered.errors))
  for (const { path, content, executable } of rendered.files) {
    await mkdir(dirname(join(into, path)), { recursive: true })
    await writeFile(join(into, path), content)
    await chmod(join(into, path), executable ? 0o755 : 0o644)
  }
  return rendered.files.map((file) => file.path)
}

const text = (path: string) => readFile(join(folder, path), 'utf8')

/** Without the variables of this test run, which would make node:test report to it. */
const env = { PATH: `${dirname(process.execPath)}:${process.env.PATH}`, HOME: tmpdir() }

test('three templates exist, with a default for every variable', async () => {
  const list = (await TemplateCatalog.load(TEMPLATES)).list()
  expect(list.map((template) => template.name)).toEqual(['hello-world', 'node-service', 'static-site'])
  for (const { variables } of list) {
    for (const { default: defaultValue } of variables) expect(defaultValue).not.toBeNull()
  }
})

test.each(['hello-world', 'node-service', 'static-site'])('%s renders every tag', async (name) => {
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

test('node-service starts on its port, reports healthy, and stops on SIGTERM', async () => {
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

test('node-service explains what to do if its port is in use', async () => {
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

test('static-site has no broken links and loads nothing from other sites', async () => {
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
    expect(unclosedElements(html)).toEqual([])
  }
  const css = await text('site/style.css')
  expect(css).toContain('--accent: #2f6feb;')
  expect(css).not.toMatch(/url\(|@import/)
})

test("static-site's workflow keeps GitHub's own braces", async () => {
  await render('static-site')
  const workflow = await text('.github/workflows/pages.yml')
  expect(workflow).toContain(`url: \${{ steps.deployment.outputs.page_url }}`)
  expect(workflow).toMatch(/path: site\n/)
  expect(existsSync(join(folder, 'site/index.html'))).toBe(true)
})

describe.each(['-lead', '.dotfiles', '__init__', 'My.App', '_', 'x'.repeat(100)])(
  'in a repository named %s',
  (repo) => {
    const builtIns = { ...BUILT_INS, repo, branch: '!a+b' }
    let clone: string
    beforeEach(() => {
      clone = `${folder}/${repo}`
    })

    test.each(['hello-world', 'node-service', 'static-site'])('%s has files that parse', async (name) => {
      for (const path of await render(name, {}, builtIns, clone)) {
        const content = await readFile(`${clone}/${path}`, 'utf8')
        if (path.endsWith('.json')) JSON.parse(content)
        if (path.endsWith('.yml')) expect(parseYaml(content)).toHaveProperty('jobs')
        if (path.endsWith('.html')) expect(unclosedElements(content)).toEqual([])
        // In backticks: Markdown would render __init__ in bold.
        if (path.endsWith('.md')) expect(content.split('\n')[0]).toBe(`# \`${repo}\``)
        // A branch name must not become a pattern, in which "!" and "+" have a meaning.
        if (path.includes('workflows')) expect(content).not.toContain('!a+b')
      }
    })

    test("hello-world's instructions work beside the clone", async () => {
      await render('hello-world', {}, builtIns, clone)
      const [script = ''] = await snippets(`${clone}/README.md`)
      expect(execFileSync('sh', ['-eu', '-c', script], { cwd: folder, env, encoding: 'utf8' })).toBe(
        'Hello, world!\n',
      )
    })

    test("node-service's instructions name what they should", async () => {
      await render('node-service', {}, builtIns, clone)
      const calls: string[][] = []
      for (const script of await snippets(`${clone}/README.md`))
        calls.push(...(await recordCalls(script, clone)))
      expect(calls).toEqual([
        ['npm', 'start'],
        ['curl', 'http://localhost:8080/hello?name=Ada'],
        ['npm', 'test'],
        ['npm', 'run', 'dev'],
        ['docker', 'build', '-t', 'service', '.'],
        ['docker', 'run', '--rm', '-p', '8080:8080', 'service'],
      ])
      const output = execFileSync(process.execPath, ['--test', '--test-reporter=tap'], { cwd: clone, env })
      expect(output.toString()).toMatch(/^# fail 0$/m)
    })
  },
)

test.each([
  ['node-service', 'port', ['80\nRUN id', '0', '65536', '99999', 'x', '', ' 80']],
  ['static-site', 'accent', ['red; } body { display: none', '#fff\n', 'url("x")', '</style>', '/* x']],
  ['static-site', 'language', ['en"', 'en de', 'en\n']],
])('%s rejects an invalid %s', async (template, name, values) => {
  for (const value of values) {
    await expect(render(template, { [name]: value })).rejects.toThrow('must match the pattern')
  }
})

/** The contents of the sh code blocks. */
async function snippets(path: string): Promise<string[]> {
  return [...(await readFile(path, 'utf8')).matchAll(/^```sh\n(.*?)^```$/gms)].map(
    ([, script = '']) => script,
  )
}

/** The calls of programs that cannot run here or would not end, with the arguments that the shell passes. */
async function recordCalls(script: string, cwd: string): Promise<string[][]> {
  const programs = await mkdtemp(join(folder, 'programs-'))
  for (const name of ['npm', 'curl', 'docker']) {
    await writeFile(join(programs, name), `#!/bin/sh\nprintf '%s\\0' ${name} "$@"; echo\n`, { mode: 0o755 })
  }
  const output = execFileSync('sh', ['-eu', '-c', script], {
    cwd,
    env: { PATH: `${programs}:${process.env.PATH}` },
    encoding: 'utf8',
  })
  return output
    .split('\n')
    .filter(Boolean)
    .map((line) => line.split('\0').slice(0, -1))
}

const VOID = new Set(['meta', 'link', 'br', 'img', 'input', 'hr'])

/** The elements that are still open at the end, or were closed in the wrong order. */
function unclosedElements(html: string): string[] {
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
