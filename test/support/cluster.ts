import { createDataFolder, type DataFolder } from './data-folder.ts'
import { DEPLOY_MUTATION, type DeployResult } from './inputs.ts'
import { MAX_WAIT_MS } from './processes.ts'
import { TestServer } from './test-server.ts'

interface PostgresServer {
  url(database: string, options: Record<string, string>): string
}

/** Several nodes on one Postgres and one forge. */
export class Cluster {
  readonly nodes: TestServer[] = []
  /** By process id, including processes that have ended. */
  readonly nodeNamesByPid = new Map<number, string>()
  private readonly folder: DataFolder

  private constructor(folder: DataFolder) {
    this.folder = folder
  }

  /** Starts all nodes at the same time. */
  static async start(
    postgres: PostgresServer,
    {
      size = 3,
      database = 'postgres',
      env = {} as Record<string, string>,
      /** Further query parameters of DATABASE_URL. */
      parameters = {} as Record<string, string>,
    } = {},
  ): Promise<Cluster> {
    const cluster = new Cluster(await createDataFolder())
    const starts = Array.from({ length: size }, (_, i) =>
      TestServer.start({
        dataDir: cluster.folder.path,
        env: {
          // Identifies the node's connections; see `recordWriters`.
          DATABASE_URL: postgres.url(database, { options: `-c shipcast.node=node-${i}`, ...parameters }),
          ...env,
        },
      }),
    )
    cluster.nodes.push(...(await Promise.all(starts)))
    for (const i of cluster.nodes.keys()) cluster.recordPid(i)
    return cluster
  }

  get dataDir(): string {
    return this.folder.path
  }

  /** The socket URL of the node, then those of the others. */
  socketUrls(first: number): string[] {
    return this.nodes.map((_, i) => this.node(first + i).socketUrl)
  }

  node(number: number): TestServer {
    const node = this.nodes[number % this.nodes.length]
    if (!node) throw new Error('The cluster has no nodes.')
    return node
  }

  async restartNode(number: number): Promise<void> {
    await this.node(number).start()
    this.recordPid(number)
  }

  /**
   * Sends a deployment to one node after another until one accepts it. The input needs an idempotency key.
   */
  async deploy(input: Record<string, unknown>, first: number, timeoutMs: number): Promise<string> {
    const deadline = performance.now() + timeoutMs + MAX_WAIT_MS
    let refusal: unknown
    for (let i = first; performance.now() < deadline; i++) {
      try {
        const signal = AbortSignal.timeout(timeoutMs)
        const { data, errors } = await this.node(i).request<DeployResult>(
          DEPLOY_MUTATION,
          { input },
          {},
          signal,
        )
        if (data?.deploy) return data.deploy.id
        refusal = JSON.stringify(errors)
      } catch (error) {
        refusal = error
      }
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    throw new Error(`No node accepted the deployment within ${MAX_WAIT_MS} ms. Last response: ${refusal}`)
  }

  async stop(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.stop()))
    await this.folder.remove()
  }

  private recordPid(number: number): void {
    this.nodeNamesByPid.set(this.node(number).pid, `node-${number % this.nodes.length}`)
  }
}
