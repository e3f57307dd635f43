import type { DeploymentStep } from '../../events/logged-event.ts'
import type { CallContext, GitHubClient, Repository } from '../../github/github-client.ts'
import type { PreparedContents } from '../../github/prepared-contents.ts'
import type { Work } from '../deployment-work.ts'

/** What a step has to do its work with. */
export interface StepContext extends CallContext {
  github: GitHubClient
  contents: PreparedContents
}

/** What a step leaves behind, stored together with the event that tells of it. */
export interface StepResult {
  /** The step that has been reached. */
  step: DeploymentStep
  repository?: Pick<Repository, 'id' | 'url' | 'cloneUrl'>
  commitSha?: string
}

/**
 * One step. It may be run again after a crash at any point, and ends in the same state: what it did before is found,
 * not done twice. Rejects with `GitHubError`, or with the signal's reason.
 */
export type Step = (work: Work, context: StepContext) => Promise<StepResult>
