import { LOCAL_SUBJECT, type Subject } from '../auth/rights.ts'
import { Counts } from '../runtime/counts.ts'

/**
 * Shared subscriptions of one subject to the same events, each of which executes them. The page needs one.
 */
const MAX_SUBSCRIPTIONS_PER_TOPIC = 200
/** Shared subscriptions of one subject on this node, for example one for each deployment that it follows. */
const MAX_SUBSCRIPTIONS = 2_000

/**
 * Counts the shared subscriptions of each subject, and bounds its share of the node's subscriptions and of
 * the cost of one event. Without access control there is only one subject, to which the former bound does not
 * apply.
 */
export class SubscriptionQuotas {
  private readonly countsBySubject = new Counts()
  private readonly countsByTopic = new Counts()

  /** Why the subject cannot join another shared subscription to a topic; undefined: it can. */
  rejectionReason({ id }: Subject, topic: string): string | undefined {
    if (this.countsByTopic.get(topicKey(id, topic)) >= MAX_SUBSCRIPTIONS_PER_TOPIC) {
      return `You already have ${MAX_SUBSCRIPTIONS_PER_TOPIC} distinct subscriptions to the same events on this node. Complete some, or select the same fields in all of them.`
    }
    if (id !== LOCAL_SUBJECT.id && this.countsBySubject.get(id) >= MAX_SUBSCRIPTIONS) {
      return `You already have ${MAX_SUBSCRIPTIONS} distinct subscriptions on this node. Complete some, or follow everything with one subscription.`
    }
    return undefined
  }

  acquire(subjectId: string, topic: string): void {
    this.countsBySubject.add(subjectId)
    this.countsByTopic.add(topicKey(subjectId, topic))
  }

  release(subjectId: string, topic: string): void {
    this.countsBySubject.remove(subjectId)
    this.countsByTopic.remove(topicKey(subjectId, topic))
  }
}

function topicKey(subjectId: string, topic: string): string {
  return `${topic} ${subjectId}`
}
