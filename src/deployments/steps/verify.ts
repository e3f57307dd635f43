import { GitHubError } from '../../github/github-error.ts'
import type { Step } from './step.ts'

/** "Done!" is only said of what is there. */
export const verify: Step = async (work, { github, ...call }) => {
  const head = await github.branchHead({ owner: work.org, name: work.repo, branch: work.branch }, call)
  if (head !== work.plannedCommit) {
    throw new GitHubError(
      'REF_MOVED',
      `The branch ${work.branch} is at ${head ?? 'no commit'} although ${work.plannedCommit} was pushed. Somebody has changed it; look at the repository.`,
    )
  }
  return { step: 'DONE' }
}
