import type { ComponentProps } from 'react'
import styles from './button.module.css'

interface Appearance {
  variant?: 'default' | 'primary' | 'quiet'
  /** `large` takes the full width. */
  size?: 'small' | 'medium' | 'large'
}

export function Button({ variant, size, className, ...button }: ComponentProps<'button'> & Appearance) {
  return <button type="button" {...button} className={classOf({ variant, size }, className)} />
}

/** A link styled as a button. */
export function ButtonLink({ variant, size, className, ...link }: ComponentProps<'a'> & Appearance) {
  return <a {...link} className={classOf({ variant, size }, className)} />
}

function classOf({ variant = 'default', size = 'medium' }: Appearance, className: string | undefined) {
  return [styles.button, variantClasses[variant], sizeClasses[size], className].filter(Boolean).join(' ')
}

const variantClasses = { default: undefined, primary: styles.primary, quiet: styles.quiet }
const sizeClasses = { small: styles.small, medium: undefined, large: styles.large }
