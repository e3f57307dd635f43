import type { FragmentType } from '@apollo/client'
import { useFragment } from '@apollo/client/react'
import type { FailureNoticeFragment } from '../../gql/graphql.ts'
import { graphql } from '../../gql/index.ts'
import { Notice } from '../../ui/notice.tsx'
import { STEPS } from '../steps.ts'
import styles from './failure-notice.module.css'

const FAILURE_NOTICE = graphql(`
  fragment FailureNotice on Deployment {
    status
    error {
      code
      message
      step
    }
  }
`)

/** Which step failed, why, and what to do about it. */
export function FailureNotice({ deployment }: { deployment: FragmentType<FailureNoticeFragment> }) {
  const { data, complete } = useFragment({ fragment: FAILURE_NOTICE, from: deployment })
  if (!complete || data.status !== 'FAILED' || !data.error) return null
  const { code, message, step } = data.error
  return (
    <Notice tone="error">
      <p>
        <b>{STEPS.find((known) => known.step === step)?.name} failed.</b> {message}
      </p>
      <p className={styles.code}>
        <code>{code}</code>
      </p>
    </Notice>
  )
}
