// Installs what package-lock.json names, unless node_modules already is just that. Runs on the machine's own Node,
// before anything is installed: Node's own modules only.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const stamp = `${root}node_modules/.shipcast-installed`
const wanted = createHash('sha256')
  .update(readFileSync(`${root}package.json`))
  .update(readFileSync(`${root}package-lock.json`))
  .digest('hex')

if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== wanted) {
  console.log('Installing dependencies …')
  // No package needs its install script: what is for one kind of machine comes as an optional package with its hash,
  // and the server makes the links between Postgres' libraries where they are missing.
  const { status } = spawnSync(
    'npm',
    ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'],
    {
      cwd: root,
      stdio: 'inherit',
      shell: process.platform === 'win32',
    },
  )
  if (status !== 0) {
    console.error(
      'npm ci failed: npm says above what was in the way. Often it is the network, the registry, or a cache that cannot be written (npm_config_cache=FOLDER sets another). Then run the same command again.',
    )
    process.exit(status ?? 1)
  }
  await import('./link-node.mjs')
  writeFileSync(stamp, wanted)
}
