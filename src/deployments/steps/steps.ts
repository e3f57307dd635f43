import type { DeploymentStep } from '../../events/logged-event.ts'
import { createOrg } from './create-org.ts'
import { createRepo } from './create-repo.ts'
import { pushContents } from './push-contents.ts'
import type { Step } from './step.ts'
import { verify } from './verify.ts'

/** What comes next, once a step has been reached. */
export const NEXT_STEP: Readonly<Record<Exclude<DeploymentStep, 'DONE'>, Step>> = {
  DEPLOY: createOrg,
  CREATE_ORG: createRepo,
  CREATE_REPO: pushContents,
  PUSH_CONTENTS: verify,
}
