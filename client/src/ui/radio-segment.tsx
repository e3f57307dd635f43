import type { ComponentProps, ReactNode } from 'react'
import styles from './radio-segment.module.css'

interface Props extends ComponentProps<'input'> {
  isSmall?: boolean
  children: ReactNode
}

/** A radio button styled as one segment of a segmented control. */
export function RadioSegment({ isSmall = false, children, ...input }: Props) {
  return (
    <label className={styles.label}>
      <input {...input} type="radio" className="visually-hidden" />
      <span className={isSmall ? `${styles.segment} ${styles.small}` : styles.segment}>{children}</span>
    </label>
  )
}
