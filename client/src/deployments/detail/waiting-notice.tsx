import type { FragmentType } from '@apollo/client'
import { useFragment } from '@apollo/client/react'
import { formatCountdown, formatTime } from '../../format.ts'
import type { WaitingNoticeFragment } from '../../gql/graphql.ts'
import { graphql } from '../../gql/index.ts'
import { useServerNowMs } from '../../live/server-clock.ts'
import { Notice } from '../../ui/notice.tsx'
import styles from './waiting-notice.module.css'

const WAITING_NOTICE = graphql(`
  fragment WaitingNotice on Deployment {
    status
    waitingUntil
    error {
      message
    }
  }
`)

/** How long the deployment waits, and why. */
export function WaitingNotice({ deployment }: { deployment: FragmentType<WaitingNoticeFragment> }) {
  const { data, complete } = useFragment({ fragment: WAITING_NOTICE, from: deployment })
  const waitingUntil = complete && data.status === 'WAITING' ? data.waitingUntil : null
  const nowMs = useServerNowMs(waitingUntil ? 500 : null)
  if (!waitingUntil) return null
  const remainingMs = Date.parse(waitingUntil) - nowMs
  return (
    <Notice tone="waiting">
      <p>
        Waiting until <time dateTime={waitingUntil}>{formatTime(waitingUntil)}</time>
        {/* Hidden from screen readers, which would announce every second. */}
        <span className={styles.countdown} aria-hidden="true">
          {remainingMs > 0 ? ` · ${formatCountdown(remainingMs)}` : ' · resuming'}
        </span>
      </p>
      {complete && data.error && <p className={styles.reason}>{data.error.message}</p>}
    </Notice>
  )
}
