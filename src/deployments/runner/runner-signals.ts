import { Injectable } from '@nestjs/common'
import { PubSubEngine } from 'graphql-subscriptions'

const WORK_AVAILABLE_TOPIC = 'work'
const CANCELLATIONS_TOPIC = 'cancellations'

export interface SignalHandlers {
  /** There is work that somebody with a free place could take. */
  onWorkAvailable(): void
  /** This deployment is to be stopped; undefined: perhaps some are, look. */
  onCancel(id: string | undefined): void
}

/**
 * What nodes call out to each other's runners, and to their own. Hints: whoever misses one finds out by his next look
 * for work, or by his heartbeat.
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

  /** Returns a function that ends it. */
  async listen({ onWorkAvailable: onWork, onCancel }: SignalHandlers): Promise<() => void> {
    const ids = await Promise.all([
      this.pubSub.subscribe(WORK_AVAILABLE_TOPIC, onWork, {}),
      this.pubSub.subscribe(CANCELLATIONS_TOPIC, ({ id }: { id?: string }) => onCancel(id), {}),
    ])
    return () => {
      for (const id of ids) this.pubSub.unsubscribe(id)
    }
  }
}
