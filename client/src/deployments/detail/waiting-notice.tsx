import type { FragmentType } from '@apollo/client'
import { useFragment } from '@apollo/client/react'
import { clockTime, wholeSeconds } from '../../format.ts'
import type { WaitingNoticeDataFragment } from '../../gql/graphql.ts'
import { graphql } from '../../gql/index.ts'
import { useNowMs } from '../use-now.ts'

const WaitingNoticeData = graphql(`
  fragment WaitingNoticeData on Deployment {
    status
    waitingUntil
    error {
      message
    }
  }
`)

/** Why nothing moves at the moment, and until when. */
export function WaitingNotice({ deployment }: { deployment: FragmentType<WaitingNoticeDataFragment> }) {
  const { data, complete } = useFragment({ fragment: WaitingNoticeData, from: deployment })
  const waitingUntil = complete && data.status === 'WAITING' ? data.waitingUntil : null
  const nowMs = useNowMs(waitingUntil ? 500 : null)
  if (!waitingUntil) return null
  const remainingMs = Date.parse(waitingUntil) - nowMs
  return (
    <div className="notice notice-wait">
      <p>
        {/* The countdown is not spoken: a voice would never come to an end. */}
        Waiting until <time dateTime={waitingUntil}>{clockTime(waitingUntil)}</time>
        <span className="countdown" aria-hidden="true">
          {remainingMs > 0 ? ` · ${wholeSeconds(remainingMs)}` : ' · any moment now'}
        </span>
      </p>
      {complete && data.error && <p className="notice-more">{data.error.message}</p>}
    </div>
  )
}
