import { userInfo } from 'node:os'
import { parseArgs } from 'node:util'
import { type AuditAction, appendAuditEntry } from '../auth/audit-log.ts'
import { ACCESS_TOPIC, CredentialStore, type ListedToken } from '../auth/credentials/credential-store.ts'
import type { Grant } from '../auth/rights.ts'
import { parseGrant } from '../auth/role-mapping.ts'
import { Config, ConfigError } from '../config/config.ts'
import { Database } from '../database/database.ts'
import { DatabaseUrlError } from '../database/database-url.ts'
import { DatabaseUnavailableError } from '../database/errors.ts'
import { IncompatibleSchemaError, migrate } from '../database/migrate.ts'
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

const UNIT_MS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const
const MAX_LIFETIME_DAYS = 3_650
const NAME_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,99}$/

/** Something in the command that cannot be done. */
class CommandError extends Error {}

const USER_FACING_ERRORS = [
  CommandError,
  ConfigError,
  DatabaseUrlError,
  DatabaseUnavailableError,
  IncompatibleSchemaError,
]

/** Prints what it has done, and on the other stream what is for people only. True: it was done. */
export async function runTokenCommand(args: string[]): Promise<boolean> {
  try {
    await run(args)
    return true
  } catch (error) {
    console.error(USER_FACING_ERRORS.some((kind) => error instanceof kind) ? (error as Error).message : error)
    return false
  }
}

async function run(args: string[]): Promise<void> {
  const { values, positionals } = parseArguments(args)
  const [command = 'help', ...more] = positionals
  if (values.help || command === 'help') return console.log(USAGE)
  if (more.length > 0) throw new CommandError(`"${more.join(' ')}" is too much.\n\n${USAGE}`)
  // What can be seen to be wrong is said before anything is opened.
  if (command === 'create') {
    const token = {
      name: nameFromOption(values.name),
      grant: grantFromOptions(values.role, values.org),
      lifetimeMs: lifetimeMsFromOption(values.expires ?? '90d'),
    }
    return withTokenCommands((tokens) => tokens.create(token))
  }
  if (command === 'change') {
    const change = { name: nameFromOption(values.name), grant: grantFromOptions(values.role, values.org) }
    return withTokenCommands((tokens) => tokens.change(change))
  }
  if (command === 'list') return withTokenCommands((tokens) => tokens.list())
  if (command === 'revoke') {
    const nameOrId = values.id ?? values.name
    if (!nameOrId)
      throw new CommandError('Say which: --name ci, or --id with an id of "npm run token -- list".')
    return withTokenCommands((tokens) => tokens.revoke(nameOrId))
  }
  throw new CommandError(`There is no command "${command}".\n\n${USAGE}`)
}

function parseArguments(args: string[]) {
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
    throw new CommandError(`${(error as Error).message}\n\n${USAGE}`)
  }
}

function nameFromOption(name: string | undefined): string {
  if (name !== undefined && NAME_PATTERN.test(name)) return name
  throw new CommandError(
    '--name must be up to 100 letters, digits, dots, dashes, underscores or @, for example --name ci.',
  )
}

function grantFromOptions(role: string | undefined, orgs: string[] | undefined): Grant {
  if (role === undefined)
    throw new CommandError('--role must be viewer, deployer or admin, for example --role viewer.')
  const grant = parseGrant(
    role,
    orgs?.flatMap((org) => org.split(',')),
  )
  if (typeof grant === 'string') {
    throw new CommandError(`This cannot be: ${grant}. For example --role deployer --org acme.`)
  }
  return grant
}

function lifetimeMsFromOption(text: string): number {
  const [, number, unit = ''] = /^(\d{1,6})([smhd])$/.exec(text) ?? []
  const lifetimeMs = Number(number) * (UNIT_MS[unit as keyof typeof UNIT_MS] ?? Number.NaN)
  if (lifetimeMs > 0 && lifetimeMs <= MAX_LIFETIME_DAYS * UNIT_MS.d) return lifetimeMs
  throw new CommandError(
    `--expires must be a number of seconds, minutes, hours or days, at most ${MAX_LIFETIME_DAYS} days, for example --expires 90d. It is "${text}".`,
  )
}

/** What the command does to the database that the server uses, which may be running. */
class TokenCommands {
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
    const { id, secret, expiresAt } = await this.audited('TOKEN_CREATE', async (credentials) => {
      const token = await credentials.create(made)
      return { ...token, names: [name] }
    })
    console.error(
      `${describeGrant(grant)}, until ${expiresAt.toISOString()}; id ${id}. Shown once, and stored nowhere:`,
    )
    console.log(secret)
  }

  async list(): Promise<void> {
    const tokens = await new CredentialStore(this.database).listTokens()
    if (tokens.length === 0) console.error('There are no tokens yet. "npm run token -- create" makes one.')
    for (const token of tokens) console.log(formatToken(token))
  }

  async change({ name, grant }: { name: string; grant: Grant }): Promise<void> {
    const { changed } = await this.audited('TOKEN_CHANGE', async (credentials) => {
      const changed = await credentials.updateTokenGrants(name, [grant])
      if (changed.length === 0) throw new CommandError(`There is no valid token of the name "${name}".`)
      return { changed, names: [name] }
    })
    await this.notifyNodes()
    console.log(
      `${name}: ${describeGrant(grant)} (${changed.length === 1 ? '1 token' : `${changed.length} tokens`})`,
    )
  }

  async revoke(nameOrId: string): Promise<void> {
    const { revoked } = await this.audited('TOKEN_REVOKE', async (credentials) => {
      const revoked = await credentials.revokeTokens(nameOrId)
      if (revoked.length === 0)
        throw new CommandError(`There is no token "${nameOrId}" that could be revoked.`)
      return { revoked, names: revoked.map(({ name }) => name) }
    })
    await this.notifyNodes()
    for (const { id, name } of revoked) console.log(`Revoked ${name} (${id})`)
  }

  private async notifyNodes(): Promise<void> {
    await this.pubSub.publish(ACCESS_TOPIC, {})
  }

  /** What is done, and an entry in the audit log for each name that it was done to: both, or neither. */
  private audited<Done extends { names: string[] }>(
    action: AuditAction,
    work: (credentials: CredentialStore) => Promise<Done>,
  ): Promise<Done> {
    const subject = { id: 'command', name: `${accountName()} (command)` }
    return this.database.transaction(async (tx) => {
      const done = await work(new CredentialStore(tx))
      for (const target of done.names) {
        await appendAuditEntry(tx, { action, subject, address: null, target, result: 'OK' })
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

async function withTokenCommands(work: (tokens: TokenCommands) => Promise<void>): Promise<void> {
  const config = new Config({ ...process.env, ...WITHOUT_NETWORK_SETTINGS })
  const { databaseUrl: url, databaseListenUrl: listenUrl, dataDir } = config
  const database = await Database.open({ url, listenUrl, dataDir })
  const pubSub = new PostgresPubSub(database)
  try {
    await migrate(database)
    await pubSub.start()
    await work(new TokenCommands(database, pubSub))
  } finally {
    await pubSub.close()
    await database.close()
  }
}

/** Tokens are made before the server can be started for others: its own settings are not looked at here. */
const WITHOUT_NETWORK_SETTINGS = { HOST: '', PUBLIC_URL: '', ACCESS: '' }

function describeGrant({ role, orgs }: Grant): string {
  if (role === 'admin') return 'admin'
  return `${role} of ${orgs === 'all' ? 'every organization' : orgs.join(', ')}`
}

function formatToken({ id, name, grants, createdAt, expiresAt, revokedAt, lastUsedAt }: ListedToken): string {
  const state = revokedAt
    ? `revoked ${formatDay(revokedAt)}`
    : expiresAt.getTime() <= Date.now()
      ? `expired ${formatDay(expiresAt)}`
      : `valid until ${formatDay(expiresAt)}`
  const used = lastUsedAt ? `last used ${lastUsedAt.toISOString().slice(0, 16)}Z` : 'never used'
  return [id, name, grants.map(describeGrant).join('; '), `made ${formatDay(createdAt)}`, state, used].join(
    '\t',
  )
}

function formatDay(date: Date): string {
  return date.toISOString().slice(0, 10)
}
