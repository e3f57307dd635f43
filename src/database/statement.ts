import type pg from 'pg'

/** How long a statement may run on the server. */
export const STATEMENT_TIMEOUT_MS = 30_000
/** How much longer we then wait for an answer from a server that may have vanished without a word. */
const ANSWER_GRACE_MS = 5_000

/** Runs one statement, or several without values, and returns the rows of the last. */
export async function runStatement<Row>(
  client: pg.ClientBase,
  text: string,
  values?: readonly unknown[],
  timeoutMs = STATEMENT_TIMEOUT_MS,
): Promise<Row[]> {
  const query = { text, values: values && [...values], query_timeout: timeoutMs + ANSWER_GRACE_MS }
  const result: pg.QueryResult | pg.QueryResult[] = await client.query(query)
  return Array.isArray(result) ? (result.at(-1)?.rows ?? []) : result.rows
}
