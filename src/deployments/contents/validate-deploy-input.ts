import type { DeployInput, DeployRequest } from './deploy-input.ts'
import type { TemplateCatalog } from './template-catalog.ts'

/** Checks everything about a request at once and decodes its contents; rejects with `BadUserInput`, or the signal's reason. */
export async function readDeployInput(
  input: DeployInput,
  context: { templates: TemplateCatalog; signal: AbortSignal },
): Promise<DeployRequest> {
  throw new Error(`not built yet: ${input.repo} ${context.signal.aborted}`)
}
