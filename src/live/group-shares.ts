import { LOCAL, type Subject } from '../auth/rights.ts'
import { Counts } from '../counts.ts'

/** Groups of one subject that the same event goes to: each executes it. The page needs one. */
const MAX_GROUPS_PER_TOPIC = 200
/** Groups of one subject on this node, such as one for each deployment that it follows. */
const MAX_GROUPS = 2_000

/**
 * In how many groups each subject has a member: a share of those that the node has room for, and of what one event may
 * cost. Everybody on this machine is one subject and has no others beside it, so that the first share is not for it.
 */
export class GroupShares {
  private readonly counts = new Counts()

  /** Why the subject may not have one more group about a deployment, or about all of them (undefined). */
  refusal({ id }: Subject, about: string | undefined): string | undefined {
    if (this.counts.of(topicKey(id, about)) >= MAX_GROUPS_PER_TOPIC) {
      return `You have ${MAX_GROUPS_PER_TOPIC} different subscriptions to the same events on this node. Complete some, or ask for the same fields in all of them.`
    }
    if (id !== LOCAL.id && this.counts.of(subjectKey(id)) >= MAX_GROUPS) {
      return `You have ${MAX_GROUPS} different subscriptions on this node. Complete some, or follow all deployments with one.`
    }
    return undefined
  }

  take(subjectId: string, about: string | undefined): void {
    this.counts.add(topicKey(subjectId, about))
    this.counts.add(subjectKey(subjectId))
  }

  release(subjectId: string, about: string | undefined): void {
    this.counts.remove(topicKey(subjectId, about))
    this.counts.remove(subjectKey(subjectId))
  }
}

function subjectKey(subjectId: string): string {
  return `any ${subjectId}`
}

function topicKey(subjectId: string, about: string | undefined): string {
  return `${about ?? 'all'} ${subjectId}`
}
