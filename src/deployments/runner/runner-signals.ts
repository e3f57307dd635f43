import { Injectable } from '@nestjs/common'
import { PubSubEngine } from 'graphql-subscriptions'

const WORK_AVAILABLE_TOPIC = 'work'
const CANCELLATIONS_TOPIC = 'cancellations'

interface SignalHandlers {
  /** A runner with a free slot may find work. */
  onWorkAvailable(): void
  /** This deployment was cancelled. Undefined: any may have been; check all. */
  onCancel(id: string | undefined): void
}

/**
 * Signals between the runners of all nodes, including this one. Signals may be lost: a runner that misses one
 * is informed by its next poll or heartbeat.
 */
@Injectable()
export class RunnerSignals {
  constructor(private readonly pubSub: PubSubEngine) {}

  async notifyWorkAvailable(): Promise<void> {
    await this.pubSub.publish(WORK_AVAILABLE_TOPIC, {})
  }

  async notifyCancel(id: string): Promise<void> {
    await this.pubSub.publish(CANCELLATIONS_TOPIC, { id })
  }

  /** Returns a function that stops listening. */
  async listen({ onWorkAvailable, onCancel }: SignalHandlers): Promise<() => void> {
    const ids = await Promise.all([
      this.pubSub.subscribe(WORK_AVAILABLE_TOPIC, onWorkAvailable, {}),
      this.pubSub.subscribe(CANCELLATIONS_TOPIC, ({ id }: { id?: string }) => onCancel(id), {}),
    ])
    return () => {
      for (const id of ids) this.pubSub.unsubscribe(id)
    }
  }
}
