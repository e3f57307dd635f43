// Runs when npm has installed. Node's own modules only.
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const { optionalDependencies } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'))
const node = Object.keys(optionalDependencies).find(
  (name) => name.startsWith('node-') && existsSync(`${root}node_modules/${name}/package.json`),
)

linkNode()
removeUnused()

/**
 * Makes node_modules/.bin/node, through which every npm script runs on the Node that package-lock.json names. npm 11
 * makes this link itself; npm 10 removes it together with the packages for other machines.
 */
function linkNode() {
  if (!node) {
    console.warn(
      `npm installed no Node for this machine (${process.platform}-${process.arch}), so the one on your PATH is used, ` +
        'which has to be version 24 or newer. npm skips it when optional packages are left out, when it could not be ' +
        'downloaded, or when its hash is not the one in package-lock.json.',
    )
  } else if (process.platform !== 'win32') {
    mkdirSync(`${root}node_modules/.bin`, { recursive: true })
    rmSync(`${root}node_modules/.bin/node`, { force: true })
    symlinkSync(`../${node}/bin/node`, `${root}node_modules/.bin/node`)
  }
}

/** 140 MB that nothing here opens: headers for compiling C++, and Monaco for pages without a bundler. */
function removeUnused() {
  const folders = ['monaco-editor/dev', 'monaco-editor/min', 'monaco-editor/min-maps']
  for (const folder of node ? [...folders, `${node}/include`] : folders)
    rmSync(`${root}node_modules/${folder}`, { recursive: true, force: true })
}
