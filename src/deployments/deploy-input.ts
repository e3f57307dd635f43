import type { ContentFile } from '../github/git/commit-pack.ts'
import type { Visibility } from '../github/github-client.ts'
import type { Warnings } from './contents/path-warnings.ts'

/** The mutation's input as GraphQL hands it over: types are checked, values are not, any optional may be null. */
export interface DeployInput {
  org: string
  repo: string
  visibility?: Visibility | null
  description?: string | null
  contents: ContentsInput
  branch?: string | null
  commitMessage?: string | null
  idempotencyKey?: string | null
}

/** Exactly one of the two. */
export interface ContentsInput {
  template?: TemplateInput | null
  files?: readonly FileInput[] | null
}

export interface TemplateInput {
  name: string
  variables?: readonly VariableInput[] | null
}

export interface VariableInput {
  name: string
  value: string
}

export interface FileInput {
  path: string
  content: string
  encoding?: 'UTF8' | 'BASE64' | null
  executable?: boolean | null
}

/** The same without a fault, defaults filled in and contents decoded. */
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

export interface RequestedContents {
  /** In the order given. A template's are shared with other requests: read them, never change or transfer them. */
  files: ContentFile[]
  /** Where they come from, if from a template: the variables as given, by name. */
  template?: { name: string; variables: Record<string, string> }
  warnings: Warnings
}
