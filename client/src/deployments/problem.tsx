import type { FragmentType } from '@apollo/client'
import { useFragment } from '@apollo/client/react'
import type { StageProblemFragment } from '../gql/graphql.ts'
import { graphql } from '../gql/index.ts'
import { steps } from './steps.ts'

const StageProblem = graphql(`
  fragment StageProblem on Deployment {
    status
    error {
      code
      message
      step
    }
  }
`)

/** What went wrong, where, and what to do about it. */
export function Problem({ deployment }: { deployment: FragmentType<StageProblemFragment> }) {
  const { data, complete } = useFragment({ fragment: StageProblem, from: deployment })
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
