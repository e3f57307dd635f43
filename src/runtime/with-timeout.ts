/** The promise's result, or `fallback` if it takes longer. */
export async function withTimeout<T, F>(promise: Promise<T>, timeoutMs: number, fallback: F): Promise<T | F> {
  const timeout = Promise.withResolvers<F>()
  const timer = setTimeout(() => timeout.resolve(fallback), timeoutMs)
  try {
    return await Promise.race([promise, timeout.promise])
  } finally {
    clearTimeout(timer)
  }
}
