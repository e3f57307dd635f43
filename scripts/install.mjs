// Installs missing packages. Runs on the machine's own Node before anything is installed, so uses
// only Node's own modules.
//   node scripts/install.mjs              to build and run Shipcast
//   node scripts/install.mjs test         also to test and check it (test/package.json)
//   node scripts/install.mjs test bench   also to run the benches (bench/package.json)
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const requested = process.argv.slice(2)

await installShipcast()
if (requested.includes('bench')) installBench()

async function installShipcast() {
  const stamp = `${root}node_modules/.shipcast-installed`
  const hash = hashOf('package-lock.json')
  const [installed, scope] = read(stamp).split(' ')
  const withTests = requested.includes('test') || scope === 'test'
  const parts = withTests ? 'test' : 'server'
  if (installed === hash && scope === parts) return

  if (installed !== hash) npm('ci', withTests ? [] : ['--no-workspaces'])
  // Adds packages without removing any: a running server may need them.
  else npm('install', ['--no-save'])
  await import('./after-install.mjs')
  writeFileSync(stamp, `${hash} ${parts}`)
}

function installBench() {
  const stamp = `${root}bench/node_modules/.shipcast-installed`
  const hash = hashOf('bench/package-lock.json')
  if (read(stamp) === hash) return
  npm('ci', [], 'bench')
  writeFileSync(stamp, hash)
}

function hashOf(path) {
  return createHash('sha256')
    .update(readFileSync(`${root}${path}`))
    .digest('hex')
}

function read(path) {
  return existsSync(path) ? readFileSync(path, 'utf8') : ''
}

function npm(command, options, folder = '') {
  console.log('Installing dependencies …')
  // No package needs its install script: platform-specific files come as optional packages with a hash, and
  // the server creates missing links between Postgres' libraries itself.
  const flags = ['--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']
  const { status } = spawnSync('npm', [command, ...options, ...flags], {
    cwd: `${root}${folder}`,
    stdio: 'inherit',
    shell: process.platform === 'win32',
  })
  if (status === 0) return
  console.error(
    `"npm ${command}" failed; see above. Common causes are the network, the registry, or a cache that npm cannot ` +
      'write to (npm_config_cache=FOLDER sets another). Fix the cause, then run the same command again.',
  )
  process.exit(status ?? 1)
}
