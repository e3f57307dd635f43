// Before `npm start` and `npm run token`, on whatever Node there is: says what to do where nothing has been built yet.
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const isThere = (path) => existsSync(fileURLToPath(new URL(`../${path}`, import.meta.url)))

if (!isThere('node_modules') || !isThere('dist/main.js') || !isThere('dist/cli/token.js')) {
  console.error('Shipcast has not been built yet. Run "npm run up", which installs, builds and starts it.')
  process.exit(1)
}
