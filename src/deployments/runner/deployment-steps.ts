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

/**
 * One step. It may run again after a crash at any point, with the same result: it finds what it did before
 * instead of doing it twice. Rejects with `ForgeError`, or with the signal's reason.
 */
export type Step = (deployment: LeasedDeployment, context: StepContext) => Promise<StepResult>

interface StepContext extends CallContext {
  github: GitHubClient
  contents: PreparedContents
}

/** Stored in one transaction with the event that reports it. */
export interface StepResult {
  /** The step reached. */
  step: DeploymentStep
  repository?: Pick<Repository, 'id' | 'url' | 'cloneUrl'>
  commitSha?: string
}

const createOrg: Step = async (deployment, { github, ...call }) => {
  const { owner: login, ...repository } = repositoryInput(deployment)
  await github.ensureOrganization({ login, repository }, call)
  return { step: 'CREATE_ORG' }
}

const createRepo: Step = async (deployment, { github, ...call }) => {
  const repository = await github.ensureRepository(repositoryInput(deployment), call)
  return { step: 'CREATE_REPO', repository }
}

const pushContents: Step = async (deployment, { github, contents, ...call }) => {
  const { id, org: owner, repo: name, repositoryId, branch } = deployment
  if (repositoryId === null) throw new Error(`Deployment ${id} has reached CREATE_REPO without a repository.`)
  const { commit } = await github.pushContents(
    { owner, name, repositoryId, branch, expectedHead: null, contents },
    call,
  )
  return { step: 'PUSH_CONTENTS', commitSha: commit }
}

/** "Done!" is only reported for a branch that was read back. */
const verify: Step = async (deployment, { github, ...call }) => {
  const { org: owner, repo: name, branch, plannedCommit } = deployment
  const head = await github.branchHead({ owner, name, branch }, call)
  if (head !== plannedCommit) {
    throw new ForgeError(
      'REF_MOVED',
      `The branch ${branch} points to ${head ?? 'no commit'} although ${plannedCommit} was pushed. It was changed in the meantime; check the repository.`,
    )
  }
  return { step: 'DONE' }
}

/** The step to run, by the last step reached. */
export const NEXT_STEP: Readonly<Record<Exclude<DeploymentStep, 'DONE'>, Step>> = {
  DEPLOY: createOrg,
  CREATE_ORG: createRepo,
  CREATE_REPO: pushContents,
  PUSH_CONTENTS: verify,
}

function repositoryInput(deployment: LeasedDeployment): EnsureRepositoryInput {
  return {
    owner: deployment.org,
    name: deployment.repo,
    visibility: deployment.visibility,
    description: deployment.description,
    intentId: deployment.id,
    knownId: deployment.repositoryId,
    branch: deployment.branch,
    plannedCommit: deployment.plannedCommit,
  }
}
