import type { EnsureRepositoryInput } from '../../github/github-client.ts'
import type { Work } from '../deployment-work.ts'
import type { Step } from './step.ts'

export const createRepo: Step = async (work, { github, ...call }) => {
  const repository = await github.ensureRepository(wantedRepository(work), call)
  return { step: 'CREATE_REPO', repository }
}

export function wantedRepository(work: Work): EnsureRepositoryInput {
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
