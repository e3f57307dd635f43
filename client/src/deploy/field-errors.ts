import type { FieldError } from '../live/request-failure.ts'

/** The validation errors of one submission, looked up by field. */
export class FieldErrors {
  constructor(private readonly errors: readonly FieldError[]) {}

  get hasAny(): boolean {
    return this.errors.length > 0
  }

  /** The errors of the field at this path, as sentences. */
  at(path: string): string | undefined {
    const found = this.errors.filter((error) => error.path === path)
    return found.length > 0 ? found.map((error) => toSentence(error.reason)).join(' ') : undefined
  }

  startingWith(prefix: string): FieldError[] {
    return this.errors.filter((error) => error.path.startsWith(prefix))
  }

  /** Errors that no field displays. */
  except(isDisplayed: (path: string) => boolean): FieldError[] {
    return this.errors.filter((error) => !isDisplayed(error.path))
  }
}

/** A reason completes "<path> …", as in `must not be empty`. */
export function toSentence(reason: string): string {
  const capitalized = reason.charAt(0).toUpperCase() + reason.slice(1)
  return /[.!?]$/.test(capitalized) ? capitalized : `${capitalized}.`
}
