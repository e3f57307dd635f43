import { type ExecutionArgs, type ExecutionResult, execute } from 'graphql'
import type { RequestContext } from '../auth/request-context.ts'
import { RateLimitedError } from '../errors.ts'
import { FairSlots } from '../runtime/fair-slots.ts'

/** Making a larger answer takes more of a turn of the event loop than others should have to wait. */
const LARGE_COST = 2_000
const MAX_WAITING_OPERATIONS = 500
const RETRY_AFTER_MS = 5_000

const largeOperationSlots = new FairSlots(
  1,
  MAX_WAITING_OPERATIONS,
  () => new RateLimitedError('Too many large queries are being answered at the moment.', RETRY_AFTER_MS),
)

/**
 * Executes an operation. Large ones go one after the other, subjects by turns, so that no two of their answers are made
 * in the same turn of the event loop.
 * @throws RateLimited
 */
export async function executeFairly(
  args: ExecutionArgs & { contextValue: RequestContext },
  cost: number,
): Promise<ExecutionResult> {
  if (cost < LARGE_COST) return execute(args)
  const { subject, signal } = args.contextValue
  const leave = await largeOperationSlots.acquire([subject.id], signal)
  try {
    return await execute(args)
  } finally {
    leave()
  }
}
