import { LOCAL_SUBJECT, type Subject } from '../auth/rights.ts'
import { Counts } from '../runtime/counts.ts'

/** Groups of one subject that the same event goes to: each executes it. The page needs one. */
const MAX_SUBSCRIPTIONS_PER_TOPIC = 200
/** Groups of one subject on this node, such as one for each deployment that it follows. */
const MAX_SUBSCRIPTIONS = 2_000

/**
 * Counts the groups in which each subject has a member, and bounds its share of the node's groups and of the cost of one
 * event. Where access is not configured there is only one subject, to which the bound on all groups does not apply.
 */
export class SubscriptionQuotas {
  private readonly counts = new Counts()

  /** Why the subject may not have one more shared subscription to a topic. */
  rejectionReason({ id }: Subject, topic: string): string | undefined {
    if (this.counts.get(topicKey(id, topic)) >= MAX_SUBSCRIPTIONS_PER_TOPIC) {
      return `You have ${MAX_SUBSCRIPTIONS_PER_TOPIC} different subscriptions to the same events on this node. Complete some, or ask for the same fields in all of them.`
    }
    if (id !== LOCAL_SUBJECT.id && this.counts.get(subjectKey(id)) >= MAX_SUBSCRIPTIONS) {
      return `You have ${MAX_SUBSCRIPTIONS} different subscriptions on this node. Complete some, or follow all deployments with one.`
    }
    return undefined
  }

  acquire(subjectId: string, topic: string): void {
    this.counts.add(topicKey(subjectId, topic))
    this.counts.add(subjectKey(subjectId))
  }

  release(subjectId: string, topic: string): void {
    this.counts.remove(topicKey(subjectId, topic))
    this.counts.remove(subjectKey(subjectId))
  }
}

function subjectKey(subjectId: string): string {
  return `any ${subjectId}`
}

function topicKey(subjectId: string, topic: string): string {
  return `${topic} ${subjectId}`
}
