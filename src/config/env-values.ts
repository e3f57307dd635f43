import { z } from 'zod'

/** What is wrong with the value of a variable. The variable's name is added later, from the issue's path. */
interface InvalidValue {
  /** The end of a sentence: "must be …". */
  requirement: string
  /** A good value. */
  example: string
  /** Secret values are not repeated. */
  isSecret?: boolean
}

type Context = z.core.$RefinementCtx<unknown>

/** Rejects the value of the variable that is being parsed. */
export function rejectValue(context: Context, invalid: InvalidValue): never {
  context.addIssue({ code: 'custom', params: { invalid, value: context.value } })
  return z.NEVER
}

/** Rejects a combination of variables, with a whole sentence. */
export function rejectSettings(context: Context, sentence: string): never {
  context.addIssue({ code: 'custom', message: sentence })
  return z.NEVER
}

/** One sentence for each problem. */
export function describeIssues({ issues }: z.core.$ZodError): string[] {
  return [...new Set(issues.map(describeIssue))]
}

function describeIssue(issue: z.core.$ZodIssue): string {
  if (issue.code !== 'custom' || !issue.params?.invalid) return issue.message
  const { requirement, example, isSecret = false } = issue.params.invalid as InvalidValue
  const name = String(issue.path.at(-1))
  const sentence = `${name} ${requirement}, for example ${name}=${example}.`
  return isSecret ? sentence : `${sentence} It is "${issue.params.value}".`
}

/** Parses one environment by several schemas, and reports the problems of all of them. */
export function combine<const Schemas extends Record<string, z.core.$ZodType>>(schemas: Schemas) {
  const copies = (env: unknown) => Object.fromEntries(Object.keys(schemas).map((name) => [name, env]))
  return z.preprocess(copies, z.object(schemas))
}

/** Parses the environment by another schema, within a transform. */
export function parseAs<Schema extends z.core.$ZodType>(
  schema: Schema,
  env: unknown,
  context: Context,
): z.core.output<Schema> {
  const { data, error } = z.safeParse(schema, env)
  if (!error) return data
  for (const { path, message, ...issue } of error.issues) {
    const params = issue.code === 'custom' ? issue.params : undefined
    context.addIssue({ code: 'custom', path, message, ...(params && { params }) })
  }
  return z.NEVER
}

/** Undefined if unset. An empty value counts as unset, as in a `.env` file with nothing behind the `=`. */
export const text = z
  .string()
  .optional()
  .transform((value) => value?.trim() || undefined)

export function textOr(defaultValue: string) {
  return text.transform((value) => value ?? defaultValue)
}

export function integer({ defaultValue, min, max }: { defaultValue: number; min: number; max: number }) {
  return text.transform((value, context) => {
    if (value === undefined) return defaultValue
    const number = /^\d+$/.test(value) ? Number(value) : Number.NaN
    if (number >= min && number <= max) return number
    return rejectValue(context, {
      requirement: `must be a whole number from ${min} to ${max}`,
      example: String(defaultValue),
    })
  })
}

/** Undefined if unset. */
export function oneOf<const Value extends string>(values: readonly Value[], example: Value) {
  return text.transform((value, context) => {
    if (value === undefined) return undefined
    const known = values.find((each) => each === value.toLowerCase())
    return known ?? rejectValue(context, { requirement: `must be one of ${values.join(', ')}`, example })
  })
}

/** Undefined if unset. Secrets are sent to these addresses: not in the clear, except on this machine. */
export function secureUrl(example: string) {
  return text.transform((value, context) => {
    if (value === undefined) return undefined
    const url = URL.parse(value)
    const isSecure = url?.protocol === 'https:' || (url?.protocol === 'http:' && isLoopbackHost(url.hostname))
    if (url && isSecure && !url.search && !url.hash && !url.username) return url
    return rejectValue(context, { requirement: 'must be an https:// address', example })
  })
}

/** Takes the host of a setting, or of a URL. */
export function isLoopbackHost(host: string): boolean {
  return /^(localhost|127(\.\d{1,3}){3}|::1|\[::1\])$/.test(host)
}
