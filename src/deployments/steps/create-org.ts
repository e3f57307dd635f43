import type { Step } from './step.ts'

export const createOrg: Step = async (work, { github, ...call }) => {
  await github.ensureOrganization({ login: work.org }, call)
  return { step: 'CREATE_ORG' }
}
