import { setTimeout as sleep } from 'node:timers/promises'
import {
  type CallContext,
  type EnsureOrganizationInput,
  type EnsureRepositoryInput,
  GitHubClient,
  type Organization,
  type PushContentsInput,
  type PushResult,
  type Repository,
} from '../../../src/github/github-client.ts'

type Call = 'ensureOrganization' | 'ensureRepository' | 'pushContents' | 'branchHead'

/** Runs before a call returns. */
type Action = (context: CallContext) => Promise<void> | void

/** A forge in memory that can fail or hang at a given call, unlike a real one. */
export class MockGitHub extends GitHubClient {
  /** Every call, in order, as "call owner/name". */
  readonly calls: string[] = []
  /** Calls that have not returned yet, by every node. */
  callsInFlight = 0
  private readonly heads = new Map<string, string>()
  private readonly actions = new Map<Call, Action[]>()

  /** The next calls of this kind run these actions first, or fail with these errors; each once. */
  next(call: Call, ...actions: (Action | Error)[]): void {
    const added = actions.map((action) => (action instanceof Error ? () => Promise.reject(action) : action))
    this.actions.set(call, [...(this.actions.get(call) ?? []), ...added])
  }

  /**
   * The next call of this kind hangs. `reached` resolves when it does. It continues after `resume`, or,
   * unless it ignores aborts, ends when its signal is aborted.
   */
  hang(call: Call, { ignoresAbort = false } = {}): { reached: Promise<void>; resume: () => void } {
    const reached = Promise.withResolvers<void>()
    const resumed = Promise.withResolvers<void>()
    this.next(call, async ({ signal }) => {
      reached.resolve()
      if (ignoresAbort) await resumed.promise
      else await Promise.race([resumed.promise, sleep(2 ** 30, undefined, { signal, ref: false })])
    })
    return { reached: reached.promise, resume: resumed.resolve }
  }

  ensureOrganization({ login }: EnsureOrganizationInput, context: CallContext): Promise<Organization> {
    return this.call('ensureOrganization', login, context, () => ({ outcome: 'existed', id: login, login }))
  }

  ensureRepository({ owner, name }: EnsureRepositoryInput, context: CallContext): Promise<Repository> {
    const path = `${owner}/${name}`
    return this.call('ensureRepository', path, context, () => ({
      outcome: 'created',
      id: path,
      owner,
      name,
      url: `https://forge.test/${path}`,
      cloneUrl: `https://forge.test/${path}.git`,
    }))
  }

  pushContents({ owner, name, contents }: PushContentsInput, context: CallContext): Promise<PushResult> {
    const path = `${owner}/${name}`
    return this.call('pushContents', path, context, () => {
      this.heads.set(path, contents.commit)
      return { outcome: 'pushed', commit: contents.commit }
    })
  }

  branchHead({ owner, name }: { owner: string; name: string }, context: CallContext): Promise<string | null> {
    const path = `${owner}/${name}`
    return this.call('branchHead', path, context, () => this.heads.get(path) ?? null)
  }

  private async call<Result>(
    call: Call,
    target: string,
    context: CallContext,
    result: () => Result,
  ): Promise<Result> {
    this.calls.push(`${call} ${target}`)
    this.callsInFlight++
    try {
      await this.actions.get(call)?.shift()?.(context)
      return result()
    } finally {
      this.callsInFlight--
    }
  }
}
