import { canDeployTo } from '../auth/permissions.ts'
import { formatList } from '../format.ts'
import type { FieldError } from '../live/request-failure.ts'

export interface FormState {
  org: string
  repo: string
  source: 'template' | 'files'
  hasTemplate: boolean
  files: 'none' | 'reading' | 'failed' | 'read'
  /** Null: the user can deploy to every organization. */
  deploysTo: string[] | null
}

/**
 * What the page can check itself: required fields and permitted organizations. The server validates the rest.
 */
export function findMissingFields({
  org,
  repo,
  source,
  hasTemplate,
  files,
  deploysTo,
}: FormState): FieldError[] {
  const errors: FieldError[] = []
  const addError = (path: string, reason: string) => errors.push({ path, reason })
  if (org.trim() === '') addError('org', 'must not be empty')
  else if (!canDeployTo({ deploysTo }, org.trim()))
    addError('org', `must be an organization that you can deploy to: ${formatList(deploysTo ?? [])}`)
  if (repo.trim() === '') addError('repo', 'must not be empty')
  // No field displays this error: without a selected template, the list of templates is missing.
  if (source === 'template' && !hasTemplate) addError('contents', 'must include a template')
  if (source === 'files' && files === 'reading')
    addError('contents.files', 'must be read first: wait until reading is done')
  else if (source === 'files' && files !== 'read')
    addError('contents.files', 'must be selected: drop or choose a folder or files')
  return errors
}
