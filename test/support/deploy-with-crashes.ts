import { DEPLOY_MUTATION, type DeployResult, deployInput } from './inputs.ts'
import { withTimeout } from './processes.ts'
import type { TestServer } from './test-server.ts'
import { type ReceivedEvent, Viewer } from './viewer.ts'

/**
 * Stands before every request to a GitHub: `apply` does what is asked for and loses the answer. True: the connection is
 * cut; false: the request is answered as ever.
 */
export type Interception = (apply: () => Promise<unknown>) => Promise<boolean>

/** A GitHub whose requests can be intercepted; undefined ends that. */
export interface Interceptable {
  intercept(interception: Interception | undefined): void
}

const MAX_REQUESTS = 9

/**
 * Deploys, and kills the server twice meanwhile, each time at a random request, before or after GitHub has done it.
 * Resolves to the repository's name and the last event of the deployment.
 */
export async function deployWithTwoCrashes(
  server: TestServer,
  github: Interceptable,
  onKilled: () => void = () => {},
): Promise<{ repo: string; last: ReceivedEvent | undefined }> {
  const wanted = deployInput()
  const answer = await server.request<DeployResult>(DEPLOY_MUTATION, { input: wanted })
  if (answer.errors) throw new Error(JSON.stringify(answer.errors))
  const { id } = answer.data.deploy
  for (let time = 0; time < 2; time++) {
    const killed = Promise.withResolvers<boolean>()
    let left = 1 + Math.floor(Math.random() * MAX_REQUESTS)
    const isApplied = Math.random() < 0.5
    github.intercept(async (apply) => {
      if (--left !== 0) return false
      if (isApplied) await apply()
      await server.kill()
      onKilled()
      killed.resolve(true)
      return true
    })
    // It may have ended before the request at which it was to be killed.
    const ended = eventsOf(server, id).then(
      () => false,
      () => killed.promise,
    )
    const isKilled = await withTimeout(Promise.race([killed.promise, ended]), 'the server is killed, or done')
    github.intercept(undefined)
    if (isKilled) await server.start()
  }
  return { repo: String(wanted.repo), last: (await eventsOf(server, id)).at(-1) }
}

async function eventsOf(server: TestServer, id: string): Promise<ReceivedEvent[]> {
  const viewer = new Viewer(server.socketUrl)
  await viewer.connected()
  viewer.follow({ deploymentId: id })
  const events = await viewer.waitForEnd(id)
  await viewer.close()
  return events
}
