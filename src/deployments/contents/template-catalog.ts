import type { Fault } from '../../errors.ts'
import type { ContentFile } from '../../github/prepared-contents.ts'
import type { VariableInput } from './deploy-input.ts'

export interface Template {
  name: string
  title: string
  description: string
  variables: TemplateVariable[]
  fileCount: number
}

export interface TemplateVariable {
  name: string
  description: string
  default: string | null
  required: boolean
}

/** What every template may use without declaring it. */
export interface BuiltIns {
  org: string
  repo: string
  description: string
  branch: string
}

export class TemplateCatalog {
  /** Reads every template in the folder; rejects with an error that names file and field of the first that is broken. */
  static async load(folder: string): Promise<TemplateCatalog> {
    throw new Error(`not built yet: ${folder}`)
  }

  list(): readonly Template[] {
    return []
  }

  async render(
    name: string,
    variables: readonly VariableInput[],
    builtIns: BuiltIns,
    signal: AbortSignal,
  ): Promise<{ files: ContentFile[] } | { faults: Fault[] }> {
    throw new Error(`not built yet: ${name} ${variables.length} ${builtIns.repo} ${signal.aborted}`)
  }
}
