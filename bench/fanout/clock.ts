/** Milliseconds on the machine's monotonic clock, the same in all of its processes. */
export function clock(): number {
  return OFFSET_MS + performance.now()
}

// performance.now() is cheap but starts with the process; hrtime counts from the same moment in all of them.
const OFFSET_MS = Number(process.hrtime.bigint()) / 1e6 - performance.now()
