import { createHash, randomBytes } from 'node:crypto'
import { chmod, link, open, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import { ConfigError } from '../../config/config.ts'

/** Beside the data folder, where the account that runs Postgres for root cannot read it. */
const PASSWORD_FILE = 'postgres-password'
const PASSWORD_PATTERN = /^[A-Za-z0-9_-]{43}$/

/** The superuser's password, readable only for the owner of `dataDir`. Created on first use. */
export async function ensurePassword(dataDir: string): Promise<string> {
  const path = join(dataDir, PASSWORD_FILE)
  try {
    return await readPasswordFile(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw unusablePasswordError(path, error)
  }
  // Linked when complete, so that concurrent starts use the same password.
  const aside = `${path}.${randomBytes(6).toString('hex')}`
  try {
    await writePrivateFile(aside, randomBytes(32).toString('base64url'))
    await link(aside, path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
    return await readPasswordFile(path)
  } catch (error) {
    throw unusablePasswordError(path, error)
  } finally {
    await rm(aside, { force: true })
  }
}

/** Whether the rules require this password. If not, it is a first start, or the password file has changed. */
export async function requiresPassword(pgData: string, password: string): Promise<boolean> {
  return (await readFile(hbaPath(pgData), 'utf8').catch(() => '')) === hbaRules(password)
}

/** For the start of a server: its private socket admits only the account that owns its files anyway. */
export async function trustLocalConnections(pgData: string): Promise<void> {
  await writeHbaFile(pgData, 'local all all trust\n')
}

/** Sets the password, then makes the server require it. */
export async function requirePassword(pgData: string, connection: pg.ClientConfig): Promise<void> {
  const client = new pg.Client(connection)
  client.on('error', () => {}) // The running statement also fails.
  const password = String(connection.password)
  await client.connect()
  try {
    await client.query("set synchronous_commit = 'on'; set password_encryption = 'scram-sha-256'")
    await client.query(
      `alter role ${pg.escapeIdentifier(client.user ?? '')} password ${pg.escapeLiteral(password)}`,
    )
    await writeHbaFile(pgData, hbaRules(password))
    await client.query('select pg_reload_conf()')
  } finally {
    await client.end().catch(() => {})
  }
}

function hbaRules(password: string): string {
  const fingerprint = createHash('sha256').update(password).digest('hex')
  return [
    `# Written by Shipcast at each start with another password (${fingerprint}).`,
    'local all all scram-sha-256',
    'local replication all scram-sha-256',
    '',
  ].join('\n')
}

/** Replaces the file: the folder belongs to another account, which could have made it a link. */
async function writeHbaFile(pgData: string, text: string): Promise<void> {
  const { uid, gid } = await stat(pgData)
  const aside = `${hbaPath(pgData)}.${randomBytes(6).toString('hex')}`
  await writePrivateFile(aside, text, { uid, gid })
  await rename(aside, hbaPath(pgData))
}

async function writePrivateFile(
  path: string,
  text: string,
  owner?: { uid: number; gid: number },
): Promise<void> {
  const file = await open(path, 'wx', 0o600)
  try {
    await file.writeFile(text)
    if (owner) await file.chown(owner.uid, owner.gid)
    await file.sync()
  } finally {
    await file.close()
  }
}

async function readPasswordFile(path: string): Promise<string> {
  const password = (await readFile(path, 'utf8')).trim()
  if (!PASSWORD_PATTERN.test(password)) throw new Error('damaged')
  if ((await stat(path)).mode & 0o077) await chmod(path, 0o600)
  return password
}

function unusablePasswordError(path: string, error: unknown): ConfigError {
  const { code, message } = error as NodeJS.ErrnoException
  return new ConfigError(
    `The password of the embedded Postgres, ${path}, cannot be used (${code ?? message}). Start as the owner of that folder; or stop all processes that use it, remove the file and start again: Shipcast then creates a new one.`,
    { cause: error },
  )
}

function hbaPath(pgData: string): string {
  return join(pgData, 'pg_hba.conf')
}
