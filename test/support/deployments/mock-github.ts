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

/** A forge in memory, for what a real one cannot be made to do: to fail, or to hang, at a given call. */
export class MockGitHub extends GitHubClient {
  /** Every call, in order, as "call owner/name". */
  readonly calls: string[] = []
  private readonly heads = new Map<string, string>()
  private readonly faults = new Map<Call, (() => Promise<void> | void)[]>()

  /** The next calls of this kind do this first; each once. */
  next(call: Call, ...faults: ((() => Promise<void> | void) | Error)[]): void {
    const made = faults.map((fault) => (fault instanceof Error ? () => Promise.reject(fault) : fault))
    this.faults.set(call, [...(this.faults.get(call) ?? []), ...made])
  }

  /**
   * The next call of this kind hangs. `reached` resolves when it does; it goes on with `goOn`, or, unless it is deaf,
   * ends when its signal is aborted.
   */
  hang(call: Call, { deaf = false } = {}): { reached: Promise<void>; goOn: () => void } {
    const reached = Promise.withResolvers<void>()
    const going = Promise.withResolvers<void>()
    this.next(call, async () => {
      reached.resolve()
      const { signal } = this.context as CallContext
      if (deaf) await going.promise
      else await Promise.race([going.promise, sleep(2 ** 30, undefined, { signal, ref: false })])
    })
    return { reached: reached.promise, goOn: going.resolve }
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

  private context: CallContext | undefined

  private async call<Result>(
    call: Call,
    of: string,
    context: CallContext,
    answer: () => Result,
  ): Promise<Result> {
    this.calls.push(`${call} ${of}`)
    this.context = context
    await this.faults.get(call)?.shift()?.()
    return answer()
  }
}
