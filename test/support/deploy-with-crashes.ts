import { DEPLOY_MUTATION, type DeployResult, deployInput } from './inputs.ts'
import { withTimeout } from './processes.ts'
import type { TestServer } from './test-server.ts'
import { type ReceivedEvent, Viewer } from './viewer.ts'

/**
 * Runs before every request to a fake GitHub. `apply` executes the request and discards the response.
 * Resolves to whether the connection is closed; if not, the request is handled normally.
 */
export type Interception = (apply: () => Promise<unknown>) => Promise<boolean>

/** A fake GitHub whose requests can be intercepted; undefined ends the interception. */
export interface Interceptable {
  intercept(interception: Interception | undefined): void
}

const MAX_REQUESTS = 9

/**
 * Deploys, and kills the server twice meanwhile, each time at a random request, before or after GitHub has
 * applied it. Resolves to the repository's name and the last event of the deployment.
 */
export async function deployWithTwoCrashes(
  server: TestServer,
  github: Interceptable,
  onKilled: () => void = () => {},
): Promise<{ repo: string; last: ReceivedEvent | undefined }> {
  const input = deployInput()
  const response = await server.request<DeployResult>(DEPLOY_MUTATION, { input })
  if (response.errors) throw new Error(JSON.stringify(response.errors))
  const { id } = response.data.deploy
  for (let kill = 0; kill < 2; kill++) {
    const killed = Promise.withResolvers<boolean>()
    let remaining = 1 + Math.floor(Math.random() * MAX_REQUESTS)
    const isApplied = Math.random() < 0.5
    github.intercept(async (apply) => {
      if (--remaining !== 0) return false
      if (isApplied) await apply()
      await server.kill()
      onKilled()
      killed.resolve(true)
      return true
    })
    // The deployment may end before that request.
    const ended = eventsOf(server, id).then(
      () => false,
      () => killed.promise,
    )
    const isKilled = await withTimeout(
      Promise.race([killed.promise, ended]),
      'the server is killed or the deployment ends',
    )
    github.intercept(undefined)
    if (isKilled) await server.start()
  }
  return { repo: String(input.repo), last: (await eventsOf(server, id)).at(-1) }
}

async function eventsOf(server: TestServer, id: string): Promise<ReceivedEvent[]> {
  const viewer = new Viewer(server.socketUrl)
  await viewer.connected()
  viewer.follow({ deploymentId: id })
  const events = await viewer.waitForEnd(id)
  await viewer.close()
  return events
}
