import { useQuery } from '@apollo/client/react'
import { useEffect, useId } from 'react'
import { files } from '../format.ts'
import type { VariableInput } from '../gql/graphql.ts'
import { graphql } from '../gql/index.ts'
import { toRequestFailure } from '../live/request-failure.ts'
import type { FieldErrors } from './field-errors.ts'
import { Field } from './text-field.tsx'

const Templates = graphql(`
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

export interface TemplateChoice {
  name: string
  variables: VariableInput[]
}

interface Props {
  choice: TemplateChoice | null
  onChoose(choice: TemplateChoice): void
  faults: FieldErrors
}

/** Which template, and its variables, filled with their defaults. */
export function TemplateFields({ choice, onChoose, faults }: Props) {
  const { data, error, refetch } = useQuery(Templates)
  const group = useId()
  const templates = data?.templates
  const [first] = templates ?? []
  useEffect(() => {
    if (!choice && first) onChoose(withDefaults(first))
  }, [choice, first, onChoose])

  if (error) {
    return (
      <div className="notice notice-bad" role="alert">
        <p>The templates could not be fetched. {toRequestFailure(error).message}</p>
        <button type="button" className="button" onClick={() => refetch().catch(() => {})}>
          Try again
        </button>
      </div>
    )
  }
  if (!templates) {
    return (
      <div className="skeletons" role="status">
        <span className="visually-hidden">Loading templates</span>
        <span className="skeleton" />
        <span className="skeleton" />
      </div>
    )
  }
  if (templates.length === 0) {
    return <p className="empty">This server has no templates. Choose files from this computer instead.</p>
  }

  const chosen = templates.find((template) => template.name === choice?.name)
  const general = [faults.at('contents.template.name'), faults.at('contents.template.variables')].filter(
    Boolean,
  )
  return (
    <>
      <fieldset className="templates">
        <legend>Template</legend>
        {templates.map((template) => (
          <label key={template.name} className="template">
            <input
              type="radio"
              name={group}
              aria-labelledby={`${group}-${template.name}`}
              aria-describedby={`${group}-${template.name}-about`}
              checked={template === chosen}
              onChange={() => onChoose(withDefaults(template))}
            />
            <span className="template-title" id={`${group}-${template.name}`}>
              {template.title}
            </span>
            <span className="template-files">{files(template.fileCount)}</span>
            <span className="template-about" id={`${group}-${template.name}-about`}>
              {template.description}
            </span>
          </label>
        ))}
      </fieldset>
      {general.length > 0 && <p className="fault">{general.join(' ')}</p>}
      {choice &&
        chosen?.variables.map((variable, position) => {
          const index = choice.variables.findIndex(({ name }) => name === variable.name)
          const path = `contents.template.variables[${index}]`
          const fault = faults.at(`${path}.value`) ?? faults.at(`${path}.name`)
          return (
            <Field
              key={`${chosen.name} ${variable.name}`}
              label={variable.name}
              hint={variable.description}
              value={choice.variables[index]?.value ?? ''}
              onChange={(value) => onChoose(withVariable(choice, variable.name, value))}
              fault={fault}
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

function withDefaults({ name, variables }: TemplateWithVariables): TemplateChoice {
  return {
    name,
    variables: variables.map((variable) => ({ name: variable.name, value: variable.default ?? '' })),
  }
}

function withVariable(choice: TemplateChoice, name: string, value: string): TemplateChoice {
  return {
    ...choice,
    variables: choice.variables.map((variable) => (variable.name === name ? { name, value } : variable)),
  }
}
