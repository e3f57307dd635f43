import type { DeploymentStep } from '../../events/deployment-event.ts'
import { ForgeError } from '../../github/forge-error.ts'
import type { PreparedContents } from '../../github/git/commit-pack.ts'
import type {
  CallContext,
  EnsureRepositoryInput,
  GitHubClient,
  Repository,
} from '../../github/github-client.ts'
import type { LeasedDeployment } from './leased-deployment.ts'

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
export type Step = (work: LeasedDeployment, context: StepContext) => Promise<StepResult>

const createOrg: Step = async (work, { github, ...call }) => {
  const { owner: login, ...repository } = repositoryInput(work)
  await github.ensureOrganization({ login, repository }, call)
  return { step: 'CREATE_ORG' }
}

const createRepo: Step = async (work, { github, ...call }) => {
  const repository = await github.ensureRepository(repositoryInput(work), call)
  return { step: 'CREATE_REPO', repository }
}

const pushContents: Step = async (work, { github, contents, ...call }) => {
  if (work.repositoryId === null)
    throw new Error(`Deployment ${work.id} has reached CREATE_REPO without a repository.`)
  const { commit } = await github.pushContents(
    {
      owner: work.org,
      name: work.repo,
      repositoryId: work.repositoryId,
      branch: work.branch,
      expectedHead: null,
      contents,
    },
    call,
  )
  return { step: 'PUSH_CONTENTS', commitSha: commit }
}

/** "Done!" is only said of what is there. */
const verify: Step = async (work, { github, ...call }) => {
  const head = await github.branchHead({ owner: work.org, name: work.repo, branch: work.branch }, call)
  if (head !== work.plannedCommit) {
    throw new ForgeError(
      'REF_MOVED',
      `The branch ${work.branch} is at ${head ?? 'no commit'} although ${work.plannedCommit} was pushed. Somebody has changed it; look at the repository.`,
    )
  }
  return { step: 'DONE' }
}

/** What comes next, once a step has been reached. */
export const NEXT_STEP: Readonly<Record<Exclude<DeploymentStep, 'DONE'>, Step>> = {
  DEPLOY: createOrg,
  CREATE_ORG: createRepo,
  CREATE_REPO: pushContents,
  PUSH_CONTENTS: verify,
}

function repositoryInput(work: LeasedDeployment): EnsureRepositoryInput {
  return {
    owner: work.org,
    name: work.repo,
    visibility: work.visibility,
    description: work.description,
    intentId: work.id,
    knownId: work.repositoryId,
    branch: work.branch,
    plannedCommit: work.plannedCommit,
  }
}
