import type { Step } from './step.ts'

export const createRepo: Step = async (work, { github, ...call }) => {
  const repository = await github.ensureRepository(
    {
      owner: work.org,
      name: work.repo,
      visibility: work.visibility,
      description: work.description,
      intentId: work.id,
      knownId: work.repositoryId,
      branch: work.branch,
      plannedCommit: work.plannedCommit,
    },
    call,
  )
  return { step: 'CREATE_REPO', repository }
}
