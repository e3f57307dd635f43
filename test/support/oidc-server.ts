import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { withTimeout } from './processes.ts'

const PROGRAM = fileURLToPath(new URL('./oidc-program.ts', import.meta.url))

/** People by name, with their groups. */
export type People = Record<string, readonly string[]>

export interface OidcProgramSettings {
  port: number
  client: { id: string; secret: string }
  redirectUrls: readonly string[]
  people: People
}

/**
 * A certified OpenID provider (`oidc-provider`) in a separate process. For a browser, `localhost` and
 * Shipcast's `127.0.0.1` are different sites: redirects cross sites, as in production.
 */
export class OidcServer {
  readonly client = { id: 'shipcast', secret: 'a secret of the tests, and only of them' }
  private child: ChildProcess | undefined
  private people: People
  private readonly port: number
  private readonly redirectUrls: readonly string[]

  constructor(port: number, redirectUrls: readonly string[], people: People) {
    this.port = port
    this.redirectUrls = redirectUrls
    this.people = people
  }

  get issuer(): string {
    return `http://localhost:${this.port}`
  }

  /** The settings of a Shipcast server that uses this provider. */
  get env(): Record<string, string> {
    return {
      OIDC_ISSUER: this.issuer,
      OIDC_CLIENT_ID: this.client.id,
      OIDC_CLIENT_SECRET: this.client.secret,
      OIDC_NAME: 'Test ID',
    }
  }

  async start(): Promise<void> {
    const { port, client, redirectUrls, people } = this
    const settings: OidcProgramSettings = { port, client, redirectUrls, people }
    const args = ['--disable-warning=ExperimentalWarning', PROGRAM, JSON.stringify(settings)]
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe', 'ipc'] })
    this.child = child
    let errorOutput = ''
    child.stderr?.on('data', (chunk) => {
      errorOutput += chunk
    })
    const ended = once(child, 'exit').then(() => {
      throw new Error(`The provider ended:\n${errorOutput}`)
    })
    await withTimeout(
      Promise.race([once(child, 'message'), ended]),
      () => `the provider is ready:\n${errorOutput}`,
    )
    ended.catch(() => {})
  }

  async setPeople(people: People): Promise<void> {
    this.people = people
    if (!this.child) return
    const changed = once(this.child, 'message')
    this.child.send(people)
    await withTimeout(changed, 'the provider has the new people')
  }

  async stop(): Promise<void> {
    const { child } = this
    this.child = undefined
    if (!child || child.exitCode !== null) return
    const exited = once(child, 'exit')
    child.kill()
    await withTimeout(exited, 'the provider exits')
  }
}
