import { wantedRepository } from './create-repo.ts'
import type { Step } from './step.ts'

export const createOrg: Step = async (work, { github, ...call }) => {
  const { owner: login, ...repository } = wantedRepository(work)
  await github.ensureOrganization({ login, repository }, call)
  return { step: 'CREATE_ORG' }
}
