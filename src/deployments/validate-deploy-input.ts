import { BadUserInput, type Fault } from '../errors.ts'
import { TimeSlices } from '../runtime/time-slices.ts'
import type { TemplateCatalog } from '../templates/template-catalog.ts'
import type { BuiltIns } from '../templates/template-manifest.ts'
import { readFiles } from './contents/decode-content.ts'
import {
  branchFaults,
  commitMessageFaults,
  descriptionFaults,
  idempotencyKeyFaults,
  orgFaults,
  repoFaults,
} from './contents/name-faults.ts'
import { pathWarnings } from './contents/path-warnings.ts'
import type { ContentsInput, DeployInput, DeployRequest, RequestedContents } from './deploy-input.ts'

interface Context {
  templates: Pick<TemplateCatalog, 'render'>
  signal: AbortSignal
}

/**
 * Checks everything about a request at once and decodes its contents in the same pass. Small requests are answered
 * without leaving the turn of the event loop, large ones never hold it for long. Rejects with `BadUserInput`, which
 * has all faults, or with the signal's reason.
 */
export async function readDeployInput(input: DeployInput, context: Context): Promise<DeployRequest> {
  const faults: Fault[] = []
  const fields = readFields(input, faults)
  const builtIns = builtInsOf(fields, faults)
  const contents = await readContents(input.contents, builtIns, context, faults)
  if (faults.length > 0) throw new BadUserInput(faults)
  const paths = contents.files.map((file) => file.path)
  const warnings = await pathWarnings(paths, new TimeSlices(context.signal))
  return { ...fields, contents: { ...contents, warnings } }
}

type Fields = Omit<DeployRequest, 'contents'>

function readFields(input: DeployInput, faults: Fault[]): Fields {
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
  refuse('org', orgFaults(fields.org))
  refuse('repo', repoFaults(fields.repo))
  if (fields.visibility !== 'PUBLIC' && fields.visibility !== 'PRIVATE') {
    refuse('visibility', ['must be PUBLIC or PRIVATE'])
  }
  if (fields.description !== null) refuse('description', descriptionFaults(fields.description))
  refuse('branch', branchFaults(fields.branch))
  refuse('commitMessage', commitMessageFaults(fields.commitMessage))
  if (fields.idempotencyKey !== null) refuse('idempotencyKey', idempotencyKeyFaults(fields.idempotencyKey))
  return fields
}

/** A field that is refused already must not be the cause of more faults in the template. */
function builtInsOf({ org, repo, description, branch }: Fields, faults: readonly Fault[]): BuiltIns {
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
  { templates, signal }: Context,
  faults: Fault[],
): Promise<Omit<RequestedContents, 'warnings'>> {
  if (template && !files) {
    const variables = template.variables ?? []
    const rendered = await templates.render(template.name, variables, builtIns, signal)
    if ('files' in rendered) {
      const given = Object.fromEntries(variables.map(({ name, value }) => [name, value]))
      return { files: rendered.files, template: { name: template.name, variables: given } }
    }
    for (const fault of rendered.faults) faults.push(fault)
  } else if (files && !template) {
    return { files: await readFiles(files, new TimeSlices(signal), faults) }
  } else {
    faults.push({ path: 'input.contents', reason: 'must have either "template" or "files", and not both' })
  }
  return { files: [] }
}
