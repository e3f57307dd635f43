// Runs before `npm start` and `npm run token`, on any Node version: explains how to build
// if there is no build yet.
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const exists = (path) => existsSync(fileURLToPath(new URL(`../${path}`, import.meta.url)))

if (!exists('node_modules') || !exists('dist/main.js') || !exists('dist/cli/token.js')) {
  console.error('Shipcast has not been built yet. Run "npm run up", which installs, builds and starts it.')
  process.exit(1)
}
