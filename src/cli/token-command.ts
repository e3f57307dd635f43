import { userInfo } from 'node:os'
import { parseArgs } from 'node:util'
import { type AuditAction, appendAuditEntry } from '../auth/audit-log.ts'
import { ACCESS_TOPIC, CredentialStore, type ListedToken } from '../auth/credentials/credential-store.ts'
import { Config } from '../config/config.ts'
import { type Grant, InvalidGrantError, parseGrant } from '../config/grants.ts'
import { Database } from '../database/database.ts'
import { migrate } from '../database/migrate.ts'
import { StartupError } from '../errors.ts'
import { PostgresPubSub } from '../pubsub/postgres-pubsub.ts'

const USAGE = `Creates, lists, changes and revokes the tokens of services. Uses the settings of the server (DATA_DIR or DATABASE_URL).

  npm run token -- create --name ci --role deployer --org acme --expires 90d
      --role      viewer, deployer or admin
      --org       an organization that the role applies to; repeat it for more, or use * for all. Required for a
                  deployer; a viewer without one sees all organizations, an admin always has all
      --expires   30m, 12h, 90d (the default) …
      Prints the token, once. Several tokens may share a name, to replace one without interruption; they are one subject.
  npm run token -- list
  npm run token -- change --name ci --role viewer --org acme      changes the role of all tokens with that name
  npm run token -- revoke --name ci                               all with that name; or --id, from the list`

const UNIT_MS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const
const MAX_LIFETIME_DAYS = 3_650
const NAME_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,99}$/

/** A command that cannot be executed. */
class CommandError extends StartupError {
  override readonly name = 'CommandError'
}

/** Prints results to stdout, and messages for people to stderr. Resolves to whether the command succeeded. */
export async function runTokenCommand(args: string[]): Promise<boolean> {
  try {
    await run(args)
    return true
  } catch (error) {
    console.error(error instanceof StartupError ? error.message : error)
    return false
  }
}

async function run(args: string[]): Promise<void> {
  const { values, positionals } = parseArguments(args)
  const [command = 'help', extra] = positionals
  if (values.help || command === 'help') return console.log(USAGE)
  if (extra !== undefined) throw new CommandError(`Unexpected argument "${extra}".\n\n${USAGE}`)
  // Options are checked before the database is opened.
  switch (command) {
    case 'create': {
      const token = {
        name: nameFromOption(values.name),
        grant: grantFromOptions(values.role, values.org),
        lifetimeMs: lifetimeMsFromOption(values.expires ?? '90d'),
      }
      return withTokenCommands((tokens) => tokens.create(token))
    }
    case 'change': {
      const change = { name: nameFromOption(values.name), grant: grantFromOptions(values.role, values.org) }
      return withTokenCommands((tokens) => tokens.change(change))
    }
    case 'list':
      return withTokenCommands((tokens) => tokens.list())
    case 'revoke': {
      const nameOrId = values.id ?? values.name
      if (nameOrId) return withTokenCommands((tokens) => tokens.revoke(nameOrId))
      throw new CommandError('Specify --name ci, or --id with an id from "npm run token -- list".')
    }
    default:
      throw new CommandError(`Unknown command "${command}".\n\n${USAGE}`)
  }
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
  if (role === undefined) {
    throw new CommandError('--role must be viewer, deployer or admin, for example --role viewer.')
  }
  try {
    return parseGrant(
      role,
      orgs?.flatMap((org) => org.split(',')),
    )
  } catch (error) {
    if (!(error instanceof InvalidGrantError)) throw error
    throw new CommandError(`Invalid role: ${error.message}. For example --role deployer --org acme.`)
  }
}

function lifetimeMsFromOption(text: string): number {
  const [, number, unit = ''] = /^(\d{1,6})([smhd])$/.exec(text) ?? []
  const lifetimeMs = Number(number) * (UNIT_MS[unit as keyof typeof UNIT_MS] ?? Number.NaN)
  if (lifetimeMs > 0 && lifetimeMs <= MAX_LIFETIME_DAYS * UNIT_MS.d) return lifetimeMs
  throw new CommandError(
    `--expires must be a number of seconds, minutes, hours or days, at most ${MAX_LIFETIME_DAYS} days, for example --expires 90d. It is "${text}".`,
  )
}

/** The commands, on the database of a server that may be running. */
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
    const credential = { kind: 'token', subjectId, name, grants: [grant], lifetimeMs } as const
    const { id, secret, expiresAt } = await this.audited('TOKEN_CREATE', async (credentials) => {
      const token = await credentials.create(credential)
      return { ...token, names: [name] }
    })
    console.error(
      `${describeGrant(grant)}, valid until ${expiresAt.toISOString()}; id ${id}. The token is shown only once:`,
    )
    console.log(secret)
  }

  async list(): Promise<void> {
    const tokens = await new CredentialStore(this.database).listTokens()
    if (tokens.length === 0)
      console.error('There are no tokens yet. Create one with "npm run token -- create".')
    for (const token of tokens) console.log(formatToken(token))
  }

  async change({ name, grant }: { name: string; grant: Grant }): Promise<void> {
    const { changed } = await this.audited('TOKEN_CHANGE', async (credentials) => {
      const changed = await credentials.updateTokenGrants(name, [grant])
      if (changed.length === 0)
        throw new CommandError(`No valid token is named "${name}". List tokens with "npm run token -- list".`)
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
        throw new CommandError(
          `No unrevoked token has the name or id "${nameOrId}". List tokens with "npm run token -- list".`,
        )
      return { revoked, names: revoked.map(({ name }) => name) }
    })
    await this.notifyNodes()
    for (const { id, name } of revoked) console.log(`Revoked ${name} (${id})`)
  }

  private async notifyNodes(): Promise<void> {
    await this.pubSub.publish(ACCESS_TOPIC, {})
  }

  /** Commits the work together with an audit entry for each token name that it affects. */
  private audited<Result extends { names: string[] }>(
    action: AuditAction,
    work: (credentials: CredentialStore) => Promise<Result>,
  ): Promise<Result> {
    const subject = { id: 'command', name: `${accountName()} (command)` }
    return this.database.transaction(async (tx) => {
      const result = await work(new CredentialStore(tx))
      for (const target of result.names) {
        await appendAuditEntry(tx, { action, subject, address: null, target, result: 'OK' })
      }
      return result
    })
  }
}

/** Containers can run under a uid that has no name. */
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

/** The first token is created before the server is configured for access, so these settings do not apply. */
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
  return [
    id,
    name,
    grants.map(describeGrant).join('; '),
    `created ${formatDay(createdAt)}`,
    state,
    used,
  ].join('\t')
}

function formatDay(date: Date): string {
  return date.toISOString().slice(0, 10)
}
