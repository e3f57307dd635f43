import { useQuery } from '@apollo/client/react'
import { useEffect, useId } from 'react'
import { formatFileCount } from '../format.ts'
import type { VariableInput } from '../gql/graphql.ts'
import { graphql } from '../gql/index.ts'
import { toRequestFailure } from '../live/request-failure.ts'
import { Button } from '../ui/button.tsx'
import { Notice } from '../ui/notice.tsx'
import { Skeletons } from '../ui/skeletons.tsx'
import text from '../ui/text.module.css'
import type { FieldErrors } from './field-errors.ts'
import styles from './template-fields.module.css'
import { TextField } from './text-field.tsx'

const TEMPLATES = graphql(`
  query Templates {
    templates {
      name
      title
      description
      fileCount
      variables {
        name
        description
        default
        required
      }
    }
  }
`)

export interface TemplateSelection {
  name: string
  variables: VariableInput[]
}

interface Props {
  selection: TemplateSelection | null
  onChange(selection: TemplateSelection): void
  errors: FieldErrors
}

/** The template and its variables, which initially have their defaults. */
export function TemplateFields({ selection, onChange, errors }: Props) {
  const { data, error, refetch } = useQuery(TEMPLATES)
  const id = useId()
  const templates = data?.templates
  const [first] = templates ?? []
  useEffect(() => {
    if (!selection && first) onChange(withDefaults(first))
  }, [selection, first, onChange])

  if (error) {
    return (
      <Notice tone="error">
        <p>Could not load the templates. {toRequestFailure(error).message}</p>
        <Button onClick={() => refetch().catch(() => {})}>Try again</Button>
      </Notice>
    )
  }
  if (!templates) return <Skeletons label="Loading templates" count={2} />
  if (templates.length === 0) {
    return (
      <p className={text.empty}>This server has no templates. Choose files from this computer instead.</p>
    )
  }

  const selected = templates.find((template) => template.name === selection?.name)
  const templateErrors = [
    errors.at('contents.template.name'),
    errors.at('contents.template.variables'),
  ].filter(Boolean)
  return (
    <>
      <fieldset className={styles.templates}>
        <legend>Template</legend>
        {templates.map((template) => (
          <label key={template.name} className={styles.template}>
            <input
              type="radio"
              name={id}
              aria-labelledby={`${id}-${template.name}`}
              aria-describedby={`${id}-${template.name}-description`}
              checked={template === selected}
              onChange={() => onChange(withDefaults(template))}
            />
            <span className={styles.title} id={`${id}-${template.name}`}>
              {template.title}
            </span>
            <span className={styles.fileCount}>{formatFileCount(template.fileCount)}</span>
            <span className={styles.description} id={`${id}-${template.name}-description`}>
              {template.description}
            </span>
          </label>
        ))}
      </fieldset>
      {templateErrors.length > 0 && <p className={text.error}>{templateErrors.join(' ')}</p>}
      {selection &&
        selected?.variables.map((variable, position) => {
          const index = selection.variables.findIndex(({ name }) => name === variable.name)
          const path = `contents.template.variables[${index}]`
          return (
            <TextField
              key={`${selected.name} ${variable.name}`}
              label={variable.name}
              hint={variable.description}
              value={selection.variables[index]?.value ?? ''}
              onChange={(value) => onChange(withVariable(selection, variable.name, value))}
              error={errors.at(`${path}.value`) ?? errors.at(`${path}.name`)}
              isOptional={!variable.required}
              name={`variable-${position}`}
            />
          )
        })}
    </>
  )
}

interface TemplateWithVariables {
  name: string
  variables: readonly { name: string; default: string | null }[]
}

function withDefaults({ name, variables }: TemplateWithVariables): TemplateSelection {
  return {
    name,
    variables: variables.map((variable) => ({ name: variable.name, value: variable.default ?? '' })),
  }
}

function withVariable(selection: TemplateSelection, name: string, value: string): TemplateSelection {
  return {
    ...selection,
    variables: selection.variables.map((variable) => (variable.name === name ? { name, value } : variable)),
  }
}
