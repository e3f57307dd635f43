import { BadUserInputError, type FieldError } from '../errors.ts'
import { CooperativeScheduler } from '../runtime/cooperative-scheduler.ts'
import type { TemplateCatalog } from '../templates/template-catalog.ts'
import type { BuiltIns } from '../templates/template-manifest.ts'
import { readFiles } from './contents/decode-content.ts'
import {
  validateBranch,
  validateCommitMessage,
  validateDescription,
  validateIdempotencyKey,
  validateOrg,
  validateRepo,
} from './contents/name-rules.ts'
import { pathWarnings } from './contents/path-warnings.ts'
import type { ContentsInput, DeployInput, DeployRequest, RequestedContents } from './deploy-input.ts'

interface ValidationContext {
  templates: Pick<TemplateCatalog, 'render'>
  signal: AbortSignal
}

/**
 * Checks everything about a request at once and decodes its contents in the same pass. Small requests are answered
 * without leaving the turn of the event loop, large ones never hold it for long. Rejects with `BadUserInput`, which
 * has all faults, or with the signal's reason.
 */
export async function validateDeployInput(
  input: DeployInput,
  context: ValidationContext,
): Promise<DeployRequest> {
  const faults: FieldError[] = []
  const fields = validateFields(input, faults)
  const builtIns = builtInsOf(fields, faults)
  const contents = await readContents(input.contents, builtIns, context, faults)
  if (faults.length > 0) throw new BadUserInputError(faults)
  const paths = contents.files.map((file) => file.path)
  const warnings = await pathWarnings(paths, new CooperativeScheduler(context.signal))
  return { ...fields, contents: { ...contents, warnings } }
}

type Fields = Omit<DeployRequest, 'contents'>

function validateFields(input: DeployInput, faults: FieldError[]): Fields {
  const fields: Fields = {
    org: input.org,
    repo: input.repo,
    visibility: input.visibility ?? 'PRIVATE',
    description: input.description || null,
    branch: input.branch ?? 'main',
    commitMessage: input.commitMessage ?? 'Initial commit',
    idempotencyKey: input.idempotencyKey ?? null,
  }
  const refuse = (field: keyof Fields, reasons: string[]) => {
    for (const reason of reasons) faults.push({ path: `input.${field}`, reason })
  }
  refuse('org', validateOrg(fields.org))
  refuse('repo', validateRepo(fields.repo))
  if (fields.visibility !== 'PUBLIC' && fields.visibility !== 'PRIVATE') {
    refuse('visibility', ['must be PUBLIC or PRIVATE'])
  }
  if (fields.description !== null) refuse('description', validateDescription(fields.description))
  refuse('branch', validateBranch(fields.branch))
  refuse('commitMessage', validateCommitMessage(fields.commitMessage))
  if (fields.idempotencyKey !== null) refuse('idempotencyKey', validateIdempotencyKey(fields.idempotencyKey))
  return fields
}

/** A field that is refused already must not be the cause of more faults in the template. */
function builtInsOf({ org, repo, description, branch }: Fields, faults: readonly FieldError[]): BuiltIns {
  const isRefused = (field: string) => faults.some((fault) => fault.path === `input.${field}`)
  return {
    org: isRefused('org') ? 'org' : org,
    repo: isRefused('repo') ? 'repo' : repo,
    description: isRefused('description') ? '' : (description ?? ''),
    branch: isRefused('branch') ? 'main' : branch,
  }
}

async function readContents(
  { template, files }: ContentsInput,
  builtIns: BuiltIns,
  { templates, signal }: ValidationContext,
  faults: FieldError[],
): Promise<Omit<RequestedContents, 'warnings'>> {
  if (template && !files) {
    const variables = template.variables ?? []
    const rendered = await templates.render(template.name, variables, builtIns, signal)
    if ('files' in rendered) {
      const given = Object.fromEntries(variables.map(({ name, value }) => [name, value]))
      return { files: rendered.files, template: { name: template.name, variables: given } }
    }
    for (const error of rendered.errors) faults.push(error)
  } else if (files && !template) {
    return { files: await readFiles(files, new CooperativeScheduler(signal), faults) }
  } else {
    faults.push({ path: 'input.contents', reason: 'must have either "template" or "files", and not both' })
  }
  return { files: [] }
}
