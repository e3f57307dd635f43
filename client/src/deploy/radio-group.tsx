import { useId } from 'react'
import { RadioSegment } from '../ui/radio-segment.tsx'
import styles from './radio-group.module.css'

interface Props<T> {
  legend: string
  value: T
  onChange(value: NoInfer<T>): void
  options: readonly { value: NoInfer<T>; label: string }[]
}

/** A choice between a few values, side by side. */
export function RadioGroup<T extends string>({ legend, value, onChange, options }: Props<T>) {
  const name = useId()
  return (
    <fieldset className={styles.group}>
      <legend>{legend}</legend>
      <div className={styles.options}>
        {options.map((option) => (
          <RadioSegment
            key={option.value}
            name={name}
            value={option.value}
            checked={option.value === value}
            onChange={() => onChange(option.value)}
          >
            {option.label}
          </RadioSegment>
        ))}
      </div>
    </fieldset>
  )
}
