import { BadUserInputError, type FieldError } from '../errors.ts'
import type { ContentFile } from '../github/git/commit-pack.ts'
import type { Visibility } from '../github/github-client.ts'
import { validateBranch, validateOrg, validateRepo } from '../github/repository-names.ts'
import { CooperativeScheduler } from '../runtime/cooperative-scheduler.ts'
import type { TemplateCatalog } from '../templates/template-catalog.ts'
import type { BuiltIns } from '../templates/template-manifest.ts'
import { decodeFiles } from './contents/decode-content.ts'
import { findPathWarnings, type Warnings } from './contents/path-warnings.ts'
import { validateCommitMessage, validateDescription, validateIdempotencyKey } from './contents/text-rules.ts'
import type { ContentsInput, DeployInput } from './deploy.input.ts'

/** A valid input with defaults filled in and contents decoded. */
export interface DeployRequest {
  org: string
  repo: string
  visibility: Visibility
  description: string | null
  branch: string
  commitMessage: string
  idempotencyKey: string | null
  contents: RequestedContents
}

interface RequestedContents {
  /** In the given order. A template's files are shared between requests: never change or transfer them. */
  files: ContentFile[]
  /** If the source is a template: its name, and the given variables by name. */
  template?: { name: string; variables: Record<string, string> }
  warnings: Warnings
}

interface ValidationContext {
  templates: Pick<TemplateCatalog, 'render'>
  signal: AbortSignal
}

/**
 * Validates a whole request and decodes its contents in the same pass. Small requests finish within one turn
 * of the event loop; large ones never block it for long. Rejects with a `BadUserInputError` that lists all
 * errors, or with the signal's reason.
 */
export async function validateDeployInput(
  input: DeployInput,
  context: ValidationContext,
): Promise<DeployRequest> {
  const errors: FieldError[] = []
  const fields = validateFields(input, errors)
  const builtIns = builtInsOf(fields, errors)
  const contents = await validateContents(input.contents, builtIns, context, errors)
  if (errors.length > 0) throw new BadUserInputError(errors)
  const paths = contents.files.map((file) => file.path)
  const warnings = await findPathWarnings(paths, new CooperativeScheduler(context.signal))
  return { ...fields, contents: { ...contents, warnings } }
}

type Fields = Omit<DeployRequest, 'contents'>

function validateFields(input: DeployInput, errors: FieldError[]): Fields {
  const fields: Fields = {
    org: input.org,
    repo: input.repo,
    visibility: input.visibility ?? 'PRIVATE',
    description: input.description || null,
    branch: input.branch ?? 'main',
    commitMessage: input.commitMessage ?? 'Initial commit',
    idempotencyKey: input.idempotencyKey ?? null,
  }
  const addErrors = (field: keyof Fields, reasons: string[]) => {
    for (const reason of reasons) errors.push({ path: `input.${field}`, reason })
  }
  addErrors('org', validateOrg(fields.org))
  addErrors('repo', validateRepo(fields.repo))
  if (fields.description !== null) addErrors('description', validateDescription(fields.description))
  addErrors('branch', validateBranch(fields.branch))
  addErrors('commitMessage', validateCommitMessage(fields.commitMessage))
  if (fields.idempotencyKey !== null)
    addErrors('idempotencyKey', validateIdempotencyKey(fields.idempotencyKey))
  return fields
}

/** Replaces invalid values, so that one wrong field does not cause more errors in the template. */
function builtInsOf({ org, repo, description, branch }: Fields, errors: readonly FieldError[]): BuiltIns {
  const isInvalid = (field: string) => errors.some((error) => error.path === `input.${field}`)
  return {
    org: isInvalid('org') ? 'org' : org,
    repo: isInvalid('repo') ? 'repo' : repo,
    description: isInvalid('description') ? '' : (description ?? ''),
    branch: isInvalid('branch') ? 'main' : branch,
  }
}

async function validateContents(
  { template, files }: ContentsInput,
  builtIns: BuiltIns,
  { templates, signal }: ValidationContext,
  errors: FieldError[],
): Promise<Omit<RequestedContents, 'warnings'>> {
  if (template && !files) {
    const variables = template.variables ?? []
    const rendered = await templates.render(template.name, variables, builtIns, signal)
    if ('files' in rendered) {
      const given = Object.fromEntries(variables.map(({ name, value }) => [name, value]))
      return { files: rendered.files, template: { name: template.name, variables: given } }
    }
    for (const error of rendered.errors) errors.push(error)
  } else if (files && !template) {
    return { files: await decodeFiles(files, new CooperativeScheduler(signal), errors) }
  } else {
    errors.push({ path: 'input.contents', reason: 'must have either "template" or "files", but not both' })
  }
  return { files: [] }
}
