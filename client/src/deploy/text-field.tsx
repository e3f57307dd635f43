import { type ComponentProps, useId } from 'react'
import text from '../ui/text.module.css'
import styles from './text-field.module.css'

interface Props extends Omit<ComponentProps<'input'>, 'onChange' | 'value'> {
  label: string
  value: string
  onChange(value: string): void
  hint?: string | undefined
  error?: string | undefined
  isOptional?: boolean
  /** Offered while typing; other values are accepted too. */
  suggestions?: readonly string[] | null | undefined
}

/** A labelled text input with its hint and error. */
export function TextField({ label, value, onChange, hint, error, isOptional, suggestions, ...input }: Props) {
  const id = useId()
  const describedBy = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(' ')
  return (
    <div className={styles.field}>
      <label htmlFor={id}>
        {label}
        {isOptional && <span className={styles.optional}> optional</span>}
      </label>
      <input
        {...input}
        id={id}
        className={styles.input}
        value={value}
        onChange={(event) => onChange(event.target.value)}
        aria-invalid={error ? true : undefined}
        aria-describedby={describedBy || undefined}
        autoComplete="off"
        spellCheck={false}
        list={suggestions ? `${id}-suggestions` : undefined}
      />
      {suggestions && (
        <datalist id={`${id}-suggestions`}>
          {suggestions.map((suggestion) => (
            <option key={suggestion} value={suggestion} />
          ))}
        </datalist>
      )}
      {error && (
        <p className={text.error} id={`${id}-error`}>
          {error}
        </p>
      )}
      {hint && (
        <p className={text.hint} id={`${id}-hint`}>
          {hint}
        </p>
      )}
    </div>
  )
}
