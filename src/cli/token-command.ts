import { userInfo } from 'node:os'
import { parseArgs } from 'node:util'
import { type AuditAction, appendAudit } from '../auth/audit-log.ts'
import { ACCESS_TOPIC, CredentialStore, type ListedToken } from '../auth/credentials/credential-store.ts'
import type { Grant } from '../auth/rights.ts'
import { readGrant } from '../auth/role-mapping.ts'
import { Config, ConfigError } from '../config/config.ts'
import { Database } from '../database/database.ts'
import { DatabaseUnavailable } from '../database/database-errors.ts'
import { DatabaseUrlError } from '../database/database-url.ts'
import { migrate, SchemaTooNew } from '../database/migrations.ts'
import { MIGRATIONS } from '../database/schema.ts'
import { PostgresPubSub } from '../pubsub/postgres-pubsub.ts'

const USAGE = `Makes, lists, changes and revokes the tokens that services use. With the settings of the server (DATA_DIR or DATABASE_URL).

  npm run token -- create --name ci --role deployer --org acme --expires 90d
      --role      viewer, deployer or admin
      --org       an organization that it is bound to; again for more, or * for all. A deployer needs one;
                  a viewer without any sees all, an admin is of all
      --expires   30m, 12h, 90d (the default) …
      Shown once: the token. A name may have several tokens, to replace one without a pause; they are one subject.
  npm run token -- list
  npm run token -- change --name ci --role viewer --org acme      what the tokens of that name may do from now on
  npm run token -- revoke --name ci                               all of that name; or --id, from the list`

const UNITS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const
const LONGEST_DAYS = 3_650
const NAME = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,99}$/

/** Something in the command that cannot be done. */
class BadCommand extends Error {}

const FOR_PEOPLE = [BadCommand, ConfigError, DatabaseUrlError, DatabaseUnavailable, SchemaTooNew]

/** Prints what it has done, and on the other stream what is for people only. True: it was done. */
export async function runTokenCommand(args: string[]): Promise<boolean> {
  try {
    await run(args)
    return true
  } catch (error) {
    console.error(FOR_PEOPLE.some((kind) => error instanceof kind) ? (error as Error).message : error)
    return false
  }
}

async function run(args: string[]): Promise<void> {
  const { values, positionals } = read(args)
  const [command = 'help', ...more] = positionals
  if (values.help || command === 'help') return console.log(USAGE)
  if (more.length > 0) throw new BadCommand(`"${more.join(' ')}" is too much.\n\n${USAGE}`)
  // What can be seen to be wrong is said before anything is opened.
  if (command === 'create') {
    const token = {
      name: nameIn(values.name),
      grant: grantIn(values.role, values.org),
      lifetimeMs: lifetimeIn(values.expires ?? '90d'),
    }
    return withTokens((tokens) => tokens.create(token))
  }
  if (command === 'change') {
    const change = { name: nameIn(values.name), grant: grantIn(values.role, values.org) }
    return withTokens((tokens) => tokens.change(change))
  }
  if (command === 'list') return withTokens((tokens) => tokens.list())
  if (command === 'revoke') {
    const nameOrId = values.id ?? values.name
    if (!nameOrId)
      throw new BadCommand('Say which: --name ci, or --id with an id of "npm run token -- list".')
    return withTokens((tokens) => tokens.revoke(nameOrId))
  }
  throw new BadCommand(`There is no command "${command}".\n\n${USAGE}`)
}

function read(args: string[]) {
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: {
        name: { type: 'string' },
        id: { type: 'string' },
        role: { type: 'string' },
        org: { type: 'string', multiple: true },
        expires: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    })
  } catch (error) {
    throw new BadCommand(`${(error as Error).message}\n\n${USAGE}`)
  }
}

function nameIn(name: string | undefined): string {
  if (name !== undefined && NAME.test(name)) return name
  throw new BadCommand(
    '--name must be up to 100 letters, digits, dots, dashes, underscores or @, for example --name ci.',
  )
}

function grantIn(role: string | undefined, orgs: string[] | undefined): Grant {
  if (role === undefined)
    throw new BadCommand('--role must be viewer, deployer or admin, for example --role viewer.')
  const grant = readGrant(
    role,
    orgs?.flatMap((org) => org.split(',')),
  )
  if (typeof grant === 'string') {
    throw new BadCommand(`This cannot be: ${grant}. For example --role deployer --org acme.`)
  }
  return grant
}

function lifetimeIn(text: string): number {
  const [, number, unit = ''] = /^(\d{1,6})([smhd])$/.exec(text) ?? []
  const lifetimeMs = Number(number) * (UNITS[unit as keyof typeof UNITS] ?? Number.NaN)
  if (lifetimeMs > 0 && lifetimeMs <= LONGEST_DAYS * UNITS.d) return lifetimeMs
  throw new BadCommand(
    `--expires must be a number of seconds, minutes, hours or days, at most ${LONGEST_DAYS} days, for example --expires 90d. It is "${text}".`,
  )
}

/** What the command does to the database that the server uses, which may be running. */
class Tokens {
  constructor(
    private readonly database: Database,
    private readonly pubSub: PostgresPubSub,
  ) {}

  async create({
    name,
    grant,
    lifetimeMs,
  }: {
    name: string
    grant: Grant
    lifetimeMs: number
  }): Promise<void> {
    const subjectId = `service:${name}`
    const made = { kind: 'token', subjectId, name, grants: [grant], lifetimeMs } as const
    const { id, secret, expiresAt } = await this.noted('TOKEN_CREATE', async (credentials) => {
      const token = await credentials.create(made)
      return { ...token, names: [name] }
    })
    console.error(
      `${describe(grant)}, until ${expiresAt.toISOString()}; id ${id}. Shown once, and stored nowhere:`,
    )
    console.log(secret)
  }

  async list(): Promise<void> {
    const tokens = await new CredentialStore(this.database).listTokens()
    if (tokens.length === 0) console.error('There are no tokens yet. "npm run token -- create" makes one.')
    for (const token of tokens) console.log(line(token))
  }

  async change({ name, grant }: { name: string; grant: Grant }): Promise<void> {
    const { changed } = await this.noted('TOKEN_CHANGE', async (credentials) => {
      const changed = await credentials.changeTokens(name, [grant])
      if (changed.length === 0) throw new BadCommand(`There is no valid token of the name "${name}".`)
      return { changed, names: [name] }
    })
    await this.tellNodes()
    console.log(
      `${name}: ${describe(grant)} (${changed.length === 1 ? '1 token' : `${changed.length} tokens`})`,
    )
  }

  async revoke(nameOrId: string): Promise<void> {
    const { revoked } = await this.noted('TOKEN_REVOKE', async (credentials) => {
      const revoked = await credentials.revokeTokens(nameOrId)
      if (revoked.length === 0) throw new BadCommand(`There is no token "${nameOrId}" that could be revoked.`)
      return { revoked, names: revoked.map(({ name }) => name) }
    })
    await this.tellNodes()
    for (const { id, name } of revoked) console.log(`Revoked ${name} (${id})`)
  }

  private async tellNodes(): Promise<void> {
    await this.pubSub.publish(ACCESS_TOPIC, {})
  }

  /** What is done, and an entry in the audit log for each name that it was done to: both, or neither. */
  private noted<Done extends { names: string[] }>(
    action: AuditAction,
    work: (credentials: CredentialStore) => Promise<Done>,
  ): Promise<Done> {
    const subject = { id: 'command', name: `${accountName()} (command)` }
    return this.database.transaction(async (tx) => {
      const done = await work(new CredentialStore(tx))
      for (const target of done.names) {
        await appendAudit(tx, { action, subject, address: null, target, result: 'OK' })
      }
      return done
    })
  }
}

/** Containers run as accounts that the system has no name for. */
function accountName(): string {
  try {
    return userInfo().username
  } catch {
    return `account ${process.getuid?.()}`
  }
}

async function withTokens(work: (tokens: Tokens) => Promise<void>): Promise<void> {
  const config = new Config({ ...process.env, ...NOT_LISTENING })
  const { databaseUrl: url, databaseListenUrl: listenUrl, dataDir } = config
  const database = await Database.open({ url, listenUrl, dataDir })
  const pubSub = new PostgresPubSub(database)
  try {
    await migrate(database, MIGRATIONS)
    await pubSub.start()
    await work(new Tokens(database, pubSub))
  } finally {
    await pubSub.close()
    await database.close()
  }
}

/** Tokens are made before the server can be started for others: its own settings are not looked at here. */
const NOT_LISTENING = { HOST: '', PUBLIC_URL: '', ACCESS: '' }

function describe({ role, orgs }: Grant): string {
  if (role === 'admin') return 'admin'
  return `${role} of ${orgs === 'all' ? 'every organization' : orgs.join(', ')}`
}

function line({ id, name, grants, createdAt, expiresAt, revokedAt, lastUsedAt }: ListedToken): string {
  const state = revokedAt
    ? `revoked ${day(revokedAt)}`
    : expiresAt.getTime() <= Date.now()
      ? `expired ${day(expiresAt)}`
      : `valid until ${day(expiresAt)}`
  const used = lastUsedAt ? `last used ${lastUsedAt.toISOString().slice(0, 16)}Z` : 'never used'
  return [id, name, grants.map(describe).join('; '), `made ${day(createdAt)}`, state, used].join('\t')
}

function day(date: Date): string {
  return date.toISOString().slice(0, 10)
}
