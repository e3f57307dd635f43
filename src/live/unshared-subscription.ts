import { type ExecutionArgs, execute } from 'graphql'
import type { Connection, Operation } from './connection.ts'

/** A subscription that can be shared with nobody: executed for each of its events, the ordinary way. */
export class UnsharedSubscription implements Operation {
  private hasEnded = false

  constructor(
    private readonly connection: Connection,
    private readonly id: string,
    private readonly iterator: AsyncIterator<unknown>,
    private readonly args: ExecutionArgs,
  ) {
    connection.operations.set(id, this)
  }

  /** Resolves when it has ended. */
  async run(): Promise<void> {
    const { connection, id, iterator, args } = this
    try {
      for (;;) {
        const { done, value } = await iterator.next()
        if (this.hasEnded) return
        if (done) return await connection.sendComplete(id)
        const result = await execute({ ...args, rootValue: value })
        if (this.hasEnded) return
        await connection.sendNext(id, result)
      }
    } catch (error) {
      if (this.hasEnded) return
      this.end()
      await connection.sendError(id, [error])
    }
  }

  end(): void {
    this.hasEnded = true
    void stopIterator(this.iterator)
  }
}

/** It may be slow to stop, or fail in that: nobody listens any more. */
export async function stopIterator(iterator: AsyncIterator<unknown>): Promise<void> {
  try {
    await iterator.return?.()
  } catch {
    // Nothing is left that could go wrong by it.
  }
}
