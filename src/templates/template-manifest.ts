import { z } from 'zod'
import { validateText } from '../deployments/contents/text-rules.ts'
import type { FieldError } from '../errors.ts'
import type { Delimiters } from './template-text.ts'

/** Provided by Shipcast to every template; a template cannot declare them. */
export const BUILT_INS = ['org', 'repo', 'description', 'branch'] as const

export type BuiltIns = Readonly<Record<(typeof BUILT_INS)[number], string>>

/** A template's `template.json`. */
export type TemplateManifest = z.output<typeof manifestSchema>

/** `errors` lists all errors, with the field as the path; an empty path is the file itself. */
export function parseManifest(json: string): { manifest: TemplateManifest } | { errors: FieldError[] } {
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch (error) {
    return { errors: [{ path: '', reason: `is not JSON: ${messageOf(error)}` }] }
  }
  const result = manifestSchema.safeParse(value)
  return result.success ? { manifest: result.data } : { errors: result.error.issues.flatMap(toFieldErrors) }
}

function toFieldErrors(issue: z.core.$ZodIssue): FieldError[] {
  if (issue.code !== 'unrecognized_keys')
    return [{ path: z.core.toDotPath(issue.path), reason: issue.message }]
  return issue.keys.map((key) => ({
    path: z.core.toDotPath([...issue.path, key]),
    reason: 'is not a known field',
  }))
}

/** The rules for a variable's value, given or default. */
export function validateValue(value: string, pattern: RegExp | null): string[] {
  if (value.length > MAX_VALUE_BYTES || Buffer.byteLength(value) > MAX_VALUE_BYTES) {
    return [`must be at most ${MAX_VALUE_BYTES} bytes`]
  }
  const reasons = validateText(value)
  if (pattern && !pattern.test(value)) reasons.push(`must match the pattern ${pattern.source}`)
  return reasons
}

const MAX_VALUE_BYTES = 64 * 1024
const MAX_VARIABLES = 100

const NOT_TEXT = 'must be a non-empty string'
const NOT_OBJECT = 'must be an object'
const NOT_ARRAY = 'must be an array'
const BAD_NAME = 'must be a letter followed by letters, digits or underscores, at most 64 characters'
const BAD_DELIMITERS =
  'must be two strings of 2 to 8 characters, without spaces, "=" and "/", such as ["<%", "%>"]'

const text = z.string(NOT_TEXT).refine((value) => value.trim() !== '', NOT_TEXT)

/** The whole value must match. */
const pattern = text.nullish().transform((source, context) => {
  if (source == null) return null
  try {
    return new RegExp(`^(?:${source})$`, 'u')
  } catch (error) {
    context.addIssue(`is not a regular expression: ${messageOf(error)}`)
    return z.NEVER
  }
})

const variable = z
  .strictObject(
    {
      // Mustache looks up names in a plain object, which has properties such as "constructor".
      name: text.refine((name) => /^[A-Za-z][A-Za-z0-9_]{0,63}$/.test(name) && !(name in {}), BAD_NAME),
      description: text,
      default: z
        .string('must be a string')
        .nullish()
        .transform((value) => value ?? null),
      required: z
        .boolean('must be true or false')
        .nullish()
        .transform((value) => value ?? false),
      pattern,
    },
    NOT_OBJECT,
  )
  .superRefine((variable, context) => {
    if (variable.default === null) return
    if (variable.required)
      context.addIssue({
        code: 'custom',
        path: ['required'],
        message: 'must not be true for a variable with a default',
      })
    for (const message of validateValue(variable.default, variable.pattern))
      context.addIssue({ code: 'custom', path: ['default'], message })
  })

const variables = z
  .array(variable, NOT_ARRAY)
  .max(MAX_VARIABLES, `must have at most ${MAX_VARIABLES} items`)
  .superRefine((variables, context) => {
    const taken = new Set<string>(BUILT_INS)
    for (const [index, { name }] of variables.entries()) {
      if (taken.has(name)) {
        const message = `is "${name}", which is built in or already declared`
        context.addIssue({ code: 'custom', path: [index, 'name'], message })
      }
      taken.add(name)
    }
  })

const delimiters = z
  .array(z.string(BAD_DELIMITERS), BAD_DELIMITERS)
  .refine(
    (items) => items.length === 2 && items.every((item) => /^[^\s=/\p{Cc}]{2,8}$/u.test(item)),
    BAD_DELIMITERS,
  )
  .transform(([open = '', close = '']): Delimiters => [open, close])

// Strict: otherwise, a misspelled field would have no effect.
const manifestSchema = z.strictObject(
  {
    title: text,
    description: text,
    variables: variables.nullish().transform((value) => value ?? []),
    /** Globs of files, relative to `files/`, that are copied without rendering. */
    verbatim: z
      .array(text, NOT_ARRAY)
      .nullish()
      .transform((value) => value ?? []),
    delimiters: delimiters.nullish().transform((value): Delimiters => value ?? ['{{', '}}']),
  },
  NOT_OBJECT,
)

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
