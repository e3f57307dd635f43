// Installs what is missing, on the machine's own Node, before anything is installed: Node's own modules only.
//   node scripts/install.mjs              what Shipcast needs to be built and run
//   node scripts/install.mjs test         … and to be tested and checked (test/package.json)
//   node scripts/install.mjs test bench   … and what the benches measure against (bench/package.json)
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const wanted = process.argv.slice(2)

await installShipcast()
if (wanted.includes('bench')) installBench()

async function installShipcast() {
  const stamp = `${root}node_modules/.shipcast-installed`
  const hash = hashOf('package-lock.json')
  const [installed, scope] = read(stamp).split(' ')
  const withTests = wanted.includes('test') || scope === 'test'
  const parts = withTests ? 'test' : 'server'
  if (installed === hash && scope === parts) return

  if (installed !== hash) npm('ci', withTests ? [] : ['--no-workspaces'])
  // Adds the packages without taking any away: a server that is running needs them.
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
  // No package needs its install script: what is for one kind of machine comes as an optional package with its hash,
  // and the server makes the links between Postgres' libraries where they are missing.
  const flags = ['--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']
  const { status } = spawnSync('npm', [command, ...options, ...flags], {
    cwd: `${root}${folder}`,
    stdio: 'inherit',
    shell: process.platform === 'win32',
  })
  if (status === 0) return
  console.error(
    `"npm ${command}" failed, for the reason above. Often it is the network, the registry, or a cache that npm ` +
      'cannot write (npm_config_cache=FOLDER sets another). Run the same command again afterwards.',
  )
  process.exit(status ?? 1)
}
