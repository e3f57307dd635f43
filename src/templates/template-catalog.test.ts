import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import fc from 'fast-check'
import type { VariableValue } from './render-template.ts'
import { TemplateCatalog } from './template-catalog.ts'

const BUILT_INS = { org: 'octo', repo: 'demo', description: 'A "demo" & more', branch: 'main' }
const MANIFEST = { title: 'Title', description: 'Description' }

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'shipcast-templates-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

async function put(path: string, content: string | Uint8Array): Promise<void> {
  await mkdir(dirname(join(folder, path)), { recursive: true })
  await writeFile(join(folder, path), content)
}

/** A template named `t`. */
async function template(files: Record<string, string | Uint8Array>, manifest: object = {}): Promise<void> {
  await put('t/template.json', JSON.stringify({ ...MANIFEST, ...manifest }))
  for (const [path, content] of Object.entries(files)) await put(`t/files/${path}`, content)
}

const variable = (name: string, more: object = {}) => ({ name, description: `The ${name}`, ...more })

async function render(given: Record<string, string> | VariableValue[] = {}, name = 't') {
  const variables = Array.isArray(given)
    ? given
    : Object.entries(given).map(([name, value]) => ({ name, value }))
  const catalog = await TemplateCatalog.load(folder)
  return catalog.render(name, variables, BUILT_INS, new AbortController().signal)
}

async function texts(given: Record<string, string> = {}): Promise<Record<string, string>> {
  const rendered = await render(given)
  if ('errors' in rendered) throw new Error(JSON.stringify(rendered.errors))
  return Object.fromEntries(
    rendered.files.map(({ path, content }) => [path, Buffer.from(content).toString()]),
  )
}

async function errorsOf(given: Record<string, string> | VariableValue[] = {}, name?: string) {
  const rendered = await render(given, name)
  return 'errors' in rendered ? rendered.errors : []
}

test('lists templates by name, with their variables', async () => {
  await template(
    { a: '', 'b/.c': '' },
    { variables: [variable('x', { default: 'y' }), variable('z', { required: true })] },
  )
  await put('README.md', 'ignored')
  await put('.hidden/x', 'ignored')
  await put('a/template.json', JSON.stringify(MANIFEST))
  await put('a/files/x', '')
  const catalog = await TemplateCatalog.load(folder)
  expect(catalog.list()).toEqual([
    { name: 'a', ...MANIFEST, variables: [], fileCount: 1 },
    {
      name: 't',
      ...MANIFEST,
      variables: [
        { name: 'x', description: 'The x', default: 'y', required: false },
        { name: 'z', description: 'The z', default: null, required: true },
      ],
      fileCount: 2,
    },
  ])
})

describe('renders', () => {
  test('variables in texts and paths, including built-in ones', async () => {
    await template(
      { '{{org}}/{{x}}.txt': '{{ x }} {{repo}} {{branch}} {{y}}|', 'plain.txt': 'no tags' },
      { variables: [variable('x', { default: 'one' }), variable('y')] },
    )
    expect(await texts()).toEqual({ 'octo/one.txt': 'one demo main |', 'plain.txt': 'no tags' })
    expect(await texts({ x: 'two', y: '3' })).toEqual({
      'octo/two.txt': 'two demo main 3|',
      'plain.txt': 'no tags',
    })
  })

  test('a value escaped for the format of its file', async () => {
    await template(
      {
        'a.json': '{"x":"{{x}}"}',
        'a.yml': 'x: "{{x}}"',
        'a.html': '<p title="{{x}}">{{{repo}}}</p>',
        'a.md': '{{x}}',
        'raw.json': '[{{{y}}}]',
      },
      { variables: [variable('x'), variable('y')] },
    )
    const rendered = await texts({ x: '<"quoted" & \'more\'>\n\\', y: '1, "2"' })
    expect(JSON.parse(rendered['a.json'] ?? '')).toEqual({ x: '<"quoted" & \'more\'>\n\\' })
    expect(rendered).toMatchObject({
      'a.yml': 'x: "<\\"quoted\\" & \'more\'>\\n\\\\"',
      'a.html': '<p title="&lt;&quot;quoted&quot; &amp; &#39;more&#39;&gt;\n\\">demo</p>',
      'a.md': '<"quoted" & \'more\'>\n\\',
      'raw.json': '[1, "2"]',
    })
  })

  test('no tag inside a value', async () => {
    await template({ a: '{{x}}' }, { variables: [variable('x')] })
    const value = `{{org}} \${{ y }} {{#z}}`
    expect(await texts({ x: value })).toEqual({ a: value })
  })

  test("a workflow's own expressions unchanged", async () => {
    const workflow = `  - x: \${{ github.ref }}\n  - y: \${{m.node}} \${{ !cancelled() }} \${{ a && b }}\n`
    await template({ 'w.yml': `${workflow}  - z: "{{repo}}"\n` })
    expect(await texts()).toEqual({ 'w.yml': `${workflow}  - z: "demo"\n` })
  })

  test('every byte around the tags unchanged', async () => {
    const around = fc.string({
      unit: fc.constantFrom('a', ' ', '\n', '\r\n', '\t', '}', '{ ', 'é', '$', '}}', '\u2028'),
    })
    await fc.assert(
      fc.asyncProperty(around, around, async (before, after) => {
        const text = `${before.replace(/[{$]+$/, '')}{{repo}}${after.replace(/^\}+/, '')}`
        await template({ a: text })
        expect(await texts()).toEqual({ a: text.replace('{{repo}}', 'demo') })
      }),
      { numRuns: 50 },
    )
  })

  test('neither binary nor verbatim files', async () => {
    const latin1 = Buffer.from('{{x}} \xe9', 'latin1')
    await template(
      { 'a.bin': Buffer.from('{{x}}\0'), 'b.txt': latin1, 'v/c.txt': '{{x}}', '.github/d.yml': '{{#x}}' },
      { verbatim: ['v/**', '.github/**'] },
    )
    const rendered = await render()
    expect(rendered).toEqual({
      files: [
        { path: '.github/d.yml', content: Buffer.from('{{#x}}'), executable: false },
        { path: 'a.bin', content: Buffer.from('{{x}}\0'), executable: false },
        { path: 'b.txt', content: latin1, executable: false },
        { path: 'v/c.txt', content: Buffer.from('{{x}}'), executable: false },
      ],
    })
  })

  test('with custom delimiters', async () => {
    await template({ '<%repo%>.jsx': '<a style={{ x }}><%repo%></a>' }, { delimiters: ['<%', '%>'] })
    expect(await texts()).toEqual({ 'demo.jsx': '<a style={{ x }}>demo</a>' })
  })

  test('the executable bit', async () => {
    await template({ 'run.sh': '', 'data.txt': '' })
    await chmod(join(folder, 't/files/run.sh'), 0o755)
    expect(await render()).toMatchObject({
      files: [
        { path: 'data.txt', executable: false },
        { path: 'run.sh', executable: true },
      ],
    })
  })
})

describe('refuses to render', () => {
  const at = 'input.contents.template'

  test('an unknown template, and lists the available ones', async () => {
    await template({ a: '' })
    expect(await errorsOf({}, 'T')).toEqual([
      { path: `${at}.name`, reason: 'is "T", which is not a template on this server; available: t' },
    ])
  })

  test('variables that are unknown, built in, given twice or missing, all at once', async () => {
    await template({ a: '' }, { variables: [variable('x'), variable('must', { required: true })] })
    const given = ['x', 'nope', 'org', 'x', '__proto__'].map((name) => ({ name, value: 'v' }))
    expect(await errorsOf(given)).toEqual([
      {
        path: `${at}.variables[1].name`,
        reason: 'is "nope", which is not a variable of "t"; available: x, must',
      },
      { path: `${at}.variables[2].name`, reason: 'is "org", which comes from the input itself' },
      { path: `${at}.variables[3].name`, reason: `is the same as ${at}.variables[0].name: "x"` },
      {
        path: `${at}.variables[4].name`,
        reason: 'is "__proto__", which is not a variable of "t"; available: x, must',
      },
      { path: `${at}.variables`, reason: 'must have "must": The must' },
    ])
    expect(await errorsOf({ must: '' })).toEqual([
      { path: `${at}.variables[0].value`, reason: 'must not be empty: The must' },
    ])
  })

  test.each(['x'.repeat(65_537), 'a\0', 'a\x1b', 'a\r', '\ud800'])('the value %#', async (value) => {
    await template({ a: '' }, { variables: [variable('x')] })
    expect(await errorsOf({ x: value })).toMatchObject([{ path: `${at}.variables[0].value` }])
  })

  test('a value that matches the pattern of its variable only in part', async () => {
    const port = variable('port', { default: '80', pattern: '[1-9][0-9]*|none' })
    await template({ a: 'EXPOSE {{port}}' }, { variables: [port] })
    for (const value of ['8080', 'none']) expect(await errorsOf({ port: value })).toEqual([])
    for (const value of ['80\nRUN x', '80 ', '', 'none80', '\n80']) {
      expect(await errorsOf({ port: value })).toEqual([
        { path: `${at}.variables[0].value`, reason: 'must match the pattern ^(?:[1-9][0-9]*|none)$' },
      ])
    }
  })

  test.each(['../x', '/x', '', '.git', 'a\nb', '.', 'a//b', 'x/'])(
    'a path rendered with %j',
    async (value) => {
      await template({ 'f/{{x}}/a': '', '{{x}}/b': '' }, { variables: [variable('y'), variable('x')] })
      const found = await errorsOf({ y: 'y', x: value })
      expect(found.length).toBeGreaterThan(0)
      for (const { path, reason } of found) {
        expect(path).toBe(`${at}.variables[1].value`)
        expect(reason).toMatch(/^renders the path ".*" so that it must /)
      }
    },
  )

  test('paths that clash after rendering', async () => {
    await template({ '{{x}}': '', a: '', 'b/c': '' }, { variables: [variable('x')] })
    expect(await errorsOf({ x: 'ok' })).toEqual([])
    expect(await errorsOf({ x: 'a' })).toMatchObject([
      { path: at, reason: expect.stringMatching(/is the same as/) },
    ])
    expect(await errorsOf({ x: 'b' })).toMatchObject([
      { path: at, reason: expect.stringMatching(/both a file and a folder/) },
    ])
  })

  test('long values used so often that they would exhaust memory', async () => {
    await template({ a: '{{x}}'.repeat(100) }, { variables: [variable('x')] })
    expect(await errorsOf({ x: 'x'.repeat(10_000) })).toEqual([])
    expect(await errorsOf({ x: 'x'.repeat(60_000) })).toMatchObject([{ path: `${at}.variables` }])
  })
})

describe('refuses to start', () => {
  const refusal = () =>
    TemplateCatalog.load(folder).then(
      () => 'started',
      (error: Error) => error.message,
    )

  test('without its folder', async () => {
    await rm(folder, { recursive: true })
    expect(await refusal()).toMatch(/^TEMPLATES_DIR is ".*", which does not exist\. Set it to a folder/)
  })

  test.each<[manifest: string, message: RegExp]>([
    ['{', /template\.json is not JSON/],
    ['[]', /template\.json must be an object/],
    ['{"description":"d"}', /template\.json: title must be a non-empty string/],
    ['{"title":"t","description":3}', /template\.json: description must be a non-empty string/],
    [JSON.stringify({ ...MANIFEST, varaibles: [] }), /template\.json: varaibles is not a known field/],
    [JSON.stringify({ ...MANIFEST, variables: {} }), /template\.json: variables must be an array/],
    [JSON.stringify({ ...MANIFEST, variables: [variable('a b')] }), /variables\[0\]\.name must be a letter/],
    [
      JSON.stringify({ ...MANIFEST, variables: [variable('constructor')] }),
      /variables\[0\]\.name must be a letter/,
    ],
    [
      JSON.stringify({ ...MANIFEST, variables: [variable('repo')] }),
      /variables\[0\]\.name is "repo", which is built in/,
    ],
    [
      JSON.stringify({ ...MANIFEST, variables: [{ name: 'x' }] }),
      /variables\[0\]\.description must be a non-empty string/,
    ],
    [
      JSON.stringify({ ...MANIFEST, variables: [variable('x', { default: 1 })] }),
      /variables\[0\]\.default must be a string/,
    ],
    [
      JSON.stringify({ ...MANIFEST, variables: [variable('x', { default: 'y', required: true })] }),
      /variables\[0\]\.required must not be true for a variable with a default/,
    ],
    [
      JSON.stringify({ ...MANIFEST, variables: [variable('x', { pattern: '(' })] }),
      /variables\[0\]\.pattern is not a regular expression/,
    ],
    [
      JSON.stringify({ ...MANIFEST, variables: [variable('x', { pattern: 'a', default: 'b' })] }),
      /variables\[0\]\.default must match the pattern/,
    ],
    [JSON.stringify({ ...MANIFEST, verbatim: ['*.nope'] }), /verbatim has "\*\.nope", which matches no file/],
    [JSON.stringify({ ...MANIFEST, delimiters: ['{{'] }), /template\.json: delimiters must be two strings/],
  ])('with the manifest %s', async (manifest, message) => {
    await put('t/template.json', manifest)
    await put('t/files/a', '')
    expect(await refusal()).toMatch(/^The template "t" is broken/)
    expect(await refusal()).toMatch(message)
  })

  test('with all errors of a manifest at once', async () => {
    const wrong = { title: '', nope: 1, variables: [variable('a b', { required: 'yes' }), { name: 'x' }] }
    await put('t/template.json', JSON.stringify(wrong))
    expect((await refusal()).split('\n').slice(1)).toEqual([
      '  template.json: title must be a non-empty string',
      '  template.json: description must be a non-empty string',
      expect.stringMatching(/^ {2}template\.json: variables\[0\]\.name must be a letter/),
      '  template.json: variables[0].required must be true or false',
      '  template.json: variables[1].description must be a non-empty string',
      '  template.json: nope is not a known field',
    ])
  })

  test('with a template without a manifest or files', async () => {
    await put('t/files/a', '')
    expect(await refusal()).toMatch(/template\.json is missing/)
    await rm(join(folder, 't/files'), { recursive: true })
    await put('t/template.json', JSON.stringify(MANIFEST))
    expect(await refusal()).toMatch(/files\/ is missing/)
    await mkdir(join(folder, 't/files/empty'), { recursive: true })
    expect(await refusal()).toMatch(/files\/ has no files/)
  })

  test.each([
    ['a\n {{nope}}', /files\/x: line 2: "\{\{nope\}\}" does not name a variable/],
    ['{{#repo}}a{{/repo}}', /files\/x: line 1: "\{\{#repo\}\}" is not a plain tag/],
    ['{{! comment }}', /is not a plain tag/],
    ['{{> part}}', /is not a plain tag/],
    ['{{=<% %>=}}', /is not a plain tag/],
    ["a\n\nstyle={{ color: 'red' }}", /files\/x: line 3: .* does not name a variable.*"verbatim"/],
    ['a {{repo', /files\/x: Unclosed tag, line 1/],
  ])('with tags that are not plain: %j', async (text, message) => {
    await template({ x: text })
    expect(await refusal()).toMatch(message)
  })

  test('with invalid paths', async () => {
    await template({ 'git~1/x': '', 'a{{nope}}': '' })
    expect(await refusal()).toMatch(/files\/git~1\/x: must not have a "\.git" segment/)
    expect(await refusal()).toMatch(
      /files\/a\{\{nope\}\}: line 1: .* does not name a variable .*\(in the path\)/,
    )
  })

  test('with links', async () => {
    await template({ a: '' })
    await symlink('a', join(folder, 't/files/link'))
    await symlink(tmpdir(), join(folder, 't/files/folder'))
    expect(await refusal()).toMatch(/files\/link: is a link/)
    expect(await refusal()).toMatch(/files\/folder: is a link/)
    await rm(join(folder, 't'), { recursive: true })
    await symlink(tmpdir(), join(folder, 'elsewhere'))
    expect(await refusal()).toMatch(/"elsewhere" is broken/)
  })

  test('with a text too large to render', async () => {
    await template({ a: `{{repo}}${'x'.repeat(1024 * 1024)}` })
    expect(await refusal()).toMatch(/files\/a: has tags but is larger than 1 MiB/)
  })
})

test("refuses values that make one of git's own files invalid", async () => {
  await template(
    { '.gitmodules': '[submodule "a"]\n\turl = {{x}}\n', 'm/{{y}}': '[submodule "a"] update = !x' },
    { variables: [variable('x'), variable('y')] },
  )
  expect(await errorsOf({ x: 'https://example.com/a', y: 'modules' })).toEqual([])
  expect(await errorsOf({ x: '-u./payload', y: '.gitmodules' })).toEqual([
    {
      path: 'input.contents.template',
      reason: expect.stringMatching(
        /^renders an invalid file: ".gitmodules" must not give a submodule a url/,
      ),
    },
    {
      path: 'input.contents.template',
      reason: expect.stringMatching(
        /^renders an invalid file: "m\/{{y}}" must not give a submodule an update command/,
      ),
    },
  ])
})
