import type { FragmentType } from '@apollo/client'
import { useFragment } from '@apollo/client/react'
import type { FailureNoticeDataFragment } from '../../gql/graphql.ts'
import { graphql } from '../../gql/index.ts'
import { steps } from '../steps.ts'

const FailureNoticeData = graphql(`
  fragment FailureNoticeData on Deployment {
    status
    error {
      code
      message
      step
    }
  }
`)

/** What went wrong, where, and what to do about it. */
export function FailureNotice({ deployment }: { deployment: FragmentType<FailureNoticeDataFragment> }) {
  const { data, complete } = useFragment({ fragment: FailureNoticeData, from: deployment })
  if (!complete || data.status !== 'FAILED' || !data.error) return null
  const { code, message, step } = data.error
  return (
    <div className="notice notice-bad" role="alert">
      <p>
        <b>{steps.find((known) => known.step === step)?.name} failed.</b> {message}
      </p>
      <p className="notice-more">
        <code>{code}</code>
      </p>
    </div>
  )
}
