import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { fileURLToPath } from 'node:url'
import { createDataFolder, removeDataFolder } from './data-folder.ts'
import { MAX_WAIT_MS, withTimeout } from './processes.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const READY_MESSAGE = 'Shipcast is ready'
/** On a busy machine, initializing an embedded Postgres takes long. */
const START_TIMEOUT_MS = 100_000

export interface ServerOptions {
  /** Used with its contents; by default, a new folder. */
  dataDir?: string
  port?: number
  env?: Record<string, string>
  /** For Node itself, before the program. */
  nodeOptions?: string[]
  /** The limit of open files (ulimit -n). 0, the default: the limit of this process. */
  openFiles?: number
}

/** The built server in a separate process, as in production. */
export class TestServer {
  private child: ChildProcess | undefined
  private output = ''

  // No parameter properties: benches run this file with type stripping.
  readonly port: number
  readonly dataDir: string
  private readonly env: Record<string, string>
  private readonly nodeOptions: readonly string[]
  private readonly openFiles: number

  private constructor({ port, dataDir, env, nodeOptions, openFiles }: Required<ServerOptions>) {
    this.port = port
    this.dataDir = dataDir
    this.env = env
    this.nodeOptions = nodeOptions
    this.openFiles = openFiles
  }

  static async start({
    dataDir,
    port,
    env = {},
    nodeOptions = [],
    openFiles = 0,
  }: ServerOptions = {}): Promise<TestServer> {
    const server = new TestServer({
      port: port ?? (await findFreePort()),
      dataDir: dataDir ?? (await createDataFolder()).path,
      env,
      nodeOptions,
      openFiles,
    })
    await server.start()
    return server
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  get socketUrl(): string {
    return `ws://127.0.0.1:${this.port}/graphql`
  }

  get pid(): number {
    if (this.child?.pid === undefined) throw new Error('The server is not running.')
    return this.child.pid
  }

  /** Everything printed since the last start. */
  get log(): string {
    return this.output
  }

  /** Resolves once the server is ready; rejects with its output if it exits first. */
  async start(): Promise<void> {
    this.output = ''
    const limit = this.openFiles > 0 ? `ulimit -n ${this.openFiles}; ` : ''
    const args = [process.execPath, ...this.nodeOptions, 'dist/main.js']
    const child = spawn('sh', ['-c', `${limit}exec "$@"`, 'sh', ...args], {
      cwd: ROOT,
      env: { ...withoutSettings(process.env), PORT: String(this.port), DATA_DIR: this.dataDir, ...this.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.child = child
    const ready = new Promise<void>((resolve, reject) => {
      const onOutput = (chunk: Buffer) => {
        this.output += chunk
        if (this.output.includes(READY_MESSAGE)) resolve()
      }
      child.stdout.on('data', onOutput)
      child.stderr.on('data', onOutput)
      child.once('exit', (code) => reject(new Error(`The server exited with ${code}:\n${this.output}`)))
    })
    try {
      await withTimeout(ready, () => `the server is ready:\n${this.output}`, START_TIMEOUT_MS)
    } catch (error) {
      child.kill('SIGKILL')
      throw error
    }
  }

  /** SIGKILL, like the operating system when memory runs out. */
  kill(): Promise<void> {
    return this.endWithSignal('SIGKILL')
  }

  /** SIGTERM: with time to clean up. */
  stop(): Promise<void> {
    return this.endWithSignal('SIGTERM')
  }

  /** SIGSTOP, like a machine that hangs. */
  pause(): void {
    process.kill(this.pid, 'SIGSTOP')
  }

  resume(): void {
    process.kill(this.pid, 'SIGCONT')
  }

  async removeData(): Promise<void> {
    await removeDataFolder(this.dataDir)
  }

  /** One operation over HTTP; resolves to the response, including errors. */
  async request<Data = Record<string, unknown>>(
    query: string,
    variables: Record<string, unknown> = {},
    headers: Record<string, string> = {},
    signal = AbortSignal.timeout(MAX_WAIT_MS),
  ): Promise<{ data: Data; errors?: { message: string; extensions: Record<string, unknown> }[] }> {
    const response = await fetch(`${this.url}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify({ query, variables }),
      signal,
    })
    return (await response.json()) as never
  }

  private async endWithSignal(signal: NodeJS.Signals): Promise<void> {
    const { child } = this
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.kill(signal)
    await withTimeout(exited, () => `the server exits after ${signal}:\n${this.output}`)
  }
}

export async function findFreePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('The system assigned no port.')
  return address.port
}

/** A developer's own settings must not affect the tests. */
function withoutSettings(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const settings =
    /^(HOST|PORT|PUBLIC_URL|ACCESS|ACCESS_ROLES|OIDC_.*|TRUSTED_PROXIES|SESSION_HOURS|.*_PER_MINUTE|DATA_DIR|DATABASE_URL|DATABASE_LISTEN_URL|RETENTION_DAYS|DRAIN_MS|FORGE|GITHUB_.*|TEMPLATES_DIR|DEPLOY_CONCURRENCY|LEASE_MS|LOG_LEVEL|HTTPS?_PROXY|https?_proxy|NO_PROXY|no_proxy|NODE_EXTRA_CA_CERTS)$/
  return Object.fromEntries(Object.entries(env).filter(([name]) => !settings.test(name)))
}
