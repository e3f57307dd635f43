import { readdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect, test } from '@jest/globals'

const SOURCE = import.meta.dirname

// TypeScript types every class as existing: a misspelled or unused one would pass unnoticed.
test('every class of a CSS module exists and is used', async () => {
  const paths = await readdir(SOURCE, { recursive: true })
  const used = new Map<string, Set<string>>()
  for (const path of paths.filter((path) => path.endsWith('.tsx'))) {
    const source = await readFile(join(SOURCE, path), 'utf8')
    for (const [, name, file] of source.matchAll(/import (\w+) from '(.+\.module\.css)'/g)) {
      const module = join(dirname(path), String(file))
      const classes = used.get(module) ?? new Set()
      used.set(module, classes)
      for (const [, found] of source.matchAll(new RegExp(`\\b${name}\\.(?!module\\.css)(\\w+)`, 'g')))
        classes.add(String(found))
      // In notice.tsx the tone is the name of the class.
      if (source.includes(`${name}[tone]`)) for (const tone of ['error', 'waiting']) classes.add(tone)
    }
  }
  const modules = paths.filter((path) => path.endsWith('.module.css'))
  expect([...used.keys()].sort()).toEqual(modules.sort())
  for (const module of modules) {
    const css = (await readFile(join(SOURCE, module), 'utf8')).replace(/\/\*.*?\*\//gs, '')
    const defined = new Set([...css.matchAll(/\.([a-zA-Z]\w*)(?=[^{}]*\{)/g)].map(([, name]) => name))
    expect({ module, classes: [...defined].sort() }).toEqual({
      module,
      classes: [...(used.get(module) ?? [])].sort(),
    })
  }
})
