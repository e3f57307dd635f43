import { type Fault, quote } from '../../errors.ts'
import type { VariableInput } from './deploy-input.ts'
import type { LoadedTemplate } from './template-folder.ts'
import { BUILT_INS, valueFaults } from './template-manifest.ts'

/** What every template may use without declaring it. */
export type BuiltIns = Readonly<Record<(typeof BUILT_INS)[number], string>>

export interface ResolvedVariables {
  /** By name, all that the template may use. */
  values: Record<string, string>
  /** Which of the input's variables gave the value, for faults that show later. */
  givenAt: ReadonlyMap<string, number>
  faults: Fault[]
}

const AT = 'input.contents.template.variables'
/** So many faults of one request are worth making. */
const MAX_GIVEN = 1000

/** What is given, else the default, else nothing. */
export function resolveVariables(
  { name: template, manifest }: LoadedTemplate,
  given: readonly VariableInput[],
  builtIns: BuiltIns,
): ResolvedVariables {
  const faults: Fault[] = []
  const givenAt = new Map<string, number>()
  const values: Record<string, string> = { ...builtIns }
  for (const variable of manifest.variables) values[variable.name] = variable.default ?? ''
  if (given.length > MAX_GIVEN) faults.push({ path: AT, reason: `must be at most ${MAX_GIVEN}` })

  const declared = new Map(manifest.variables.map((variable) => [variable.name, variable]))
  const names = [...declared.keys()].join(', ') || 'none'
  for (const [index, { name, value }] of given.slice(0, MAX_GIVEN).entries()) {
    const first = givenAt.get(name)
    if (BUILT_INS.some((builtIn) => builtIn === name)) {
      faults.push({
        path: `${AT}[${index}].name`,
        reason: `is "${name}", which is taken from the input itself`,
      })
    } else if (!declared.has(name)) {
      const reason = `is ${quote(name)}, which is not a variable of "${template}"; there are: ${names}`
      faults.push({ path: `${AT}[${index}].name`, reason })
    } else if (first !== undefined) {
      faults.push({ path: `${AT}[${index}].name`, reason: `is the same as ${AT}[${first}].name: "${name}"` })
    } else {
      givenAt.set(name, index)
      values[name] = value
      const { pattern = null } = declared.get(name) ?? {}
      for (const reason of valueFaults(value, pattern)) faults.push({ path: `${AT}[${index}].value`, reason })
    }
  }
  for (const { name, description, required } of manifest.variables) {
    if (!required || values[name] !== '') continue
    const index = givenAt.get(name)
    if (index === undefined) faults.push({ path: AT, reason: `must have "${name}": ${description}` })
    else faults.push({ path: `${AT}[${index}].value`, reason: `must not be empty: ${description}` })
  }
  return { values, givenAt, faults }
}
