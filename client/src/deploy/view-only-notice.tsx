import { formatList } from '../format.ts'
import { Card } from '../ui/card.tsx'
import styles from './view-only-notice.module.css'

/** Replaces the form for viewers. `orgs` limits what they can see. */
export function ViewOnlyNotice({ orgs }: { orgs: readonly string[] | null }) {
  return (
    <Card aria-labelledby="view-only-title">
      <h2 id="view-only-title">View-only access</h2>
      <p className={styles.text}>
        You can watch deployments{orgs && ` to ${formatList(orgs)}`}. To deploy, ask an administrator to give
        one of your groups the deployer role.
      </p>
    </Card>
  )
}
