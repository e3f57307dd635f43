import { type ExecutionArgs, type ExecutionResult, execute } from 'graphql'
import { RateLimitedError } from '../errors.ts'
import { FairSlots } from '../runtime/fair-slots.ts'

/** A response that costs this much takes longer to produce than other requests should wait. */
const LARGE_COST = 2_000
const MAX_WAITING_OPERATIONS = 500
const RETRY_AFTER_MS = 5_000

const largeOperationSlots = new FairSlots(
  1,
  MAX_WAITING_OPERATIONS,
  () => new RateLimitedError('Too many large queries are waiting.', RETRY_AFTER_MS),
)

interface FairExecutionArgs extends ExecutionArgs {
  contextValue: { readonly subject: { readonly id: string }; readonly signal: AbortSignal }
}

/**
 * Executes an operation. Large ones run one at a time, with subjects taking turns, so that no two of them
 * finish in the same event-loop iteration.
 * @throws RateLimitedError
 */
export async function executeFairly(args: FairExecutionArgs, cost: number): Promise<ExecutionResult> {
  if (cost < LARGE_COST) return execute(args)
  const { subject, signal } = args.contextValue
  const releaseSlot = await largeOperationSlots.acquire([subject.id], signal)
  try {
    return await execute(args)
  } finally {
    releaseSlot()
  }
}
