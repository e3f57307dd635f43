import type { Step } from './step.ts'

export const pushContents: Step = async (work, { github, contents, ...call }) => {
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
