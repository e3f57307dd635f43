// Runs after npm has installed. Uses only Node's own modules.
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
 * Creates node_modules/.bin/node, so that every npm script runs on the Node that package-lock.json names. npm
 * 11 creates this link itself; npm 10 removes it together with the packages for other platforms.
 */
function linkNode() {
  if (!node) {
    console.warn(
      `npm did not install Node for this platform (${process.platform}-${process.arch}), so the Node in your PATH is ` +
        'used, which must be version 24 or newer. npm skips the package if optional packages are omitted, or if the ' +
        'download fails or its hash differs from package-lock.json.',
    )
  } else if (process.platform !== 'win32') {
    mkdirSync(`${root}node_modules/.bin`, { recursive: true })
    rmSync(`${root}node_modules/.bin/node`, { force: true })
    symlinkSync(`../${node}/bin/node`, `${root}node_modules/.bin/node`)
  }
}

/** Removes 140 MB of unused files: headers for compiling C++, and Monaco for pages without a bundler. */
function removeUnused() {
  const folders = ['monaco-editor/dev', 'monaco-editor/min', 'monaco-editor/min-maps']
  for (const folder of node ? [...folders, `${node}/include`] : folders)
    rmSync(`${root}node_modules/${folder}`, { recursive: true, force: true })
}
