import type { ComponentProps } from 'react'
import styles from './notice.module.css'

interface Props extends ComponentProps<'div'> {
  tone: 'error' | 'waiting'
}

/** A block of text that stands out. An error is announced by screen readers. */
export function Notice({ tone, ...div }: Props) {
  const role = tone === 'error' ? 'alert' : undefined
  return <div role={role} {...div} className={`${styles.notice} ${styles[tone]}`} />
}
