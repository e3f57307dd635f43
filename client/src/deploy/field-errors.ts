import type { FieldError } from '../live/request-failure.ts'

/** The faults of one submission, to be asked for field by field. */
export class FieldErrors {
  constructor(private readonly faults: readonly FieldError[]) {}

  get hasAny(): boolean {
    return this.faults.length > 0
  }

  /** What is wrong with the field at this path, as a sentence; undefined: nothing. */
  at(path: string): string | undefined {
    const found = this.faults.filter((fault) => fault.path === path)
    return found.length > 0 ? found.map((fault) => sentence(fault.reason)).join(' ') : undefined
  }

  below(path: string): FieldError[] {
    return this.faults.filter((fault) => fault.path.startsWith(path))
  }

  /** Those that have no place beside a field. */
  besides(hasPlace: (path: string) => boolean): FieldError[] {
    return this.faults.filter((fault) => !hasPlace(fault.path))
  }
}

/** A reason is the end of "<path> …": `must not be empty`. */
export function sentence(reason: string): string {
  const first = reason.charAt(0).toUpperCase() + reason.slice(1)
  return /[.!?]$/.test(first) ? first : `${first}.`
}
