import type { FragmentType } from '@apollo/client'
import { useFragment } from '@apollo/client/react'
import { count, size } from '../../format.ts'
import type { DeploymentStatus, DeploymentStep, PushProgressDataFragment } from '../../gql/graphql.ts'
import { graphql } from '../../gql/index.ts'

const PushProgressData = graphql(`
  fragment PushProgressData on Deployment {
    progress {
      done
      total
      unit
    }
  }
`)

interface Props {
  deployment: FragmentType<PushProgressDataFragment>
  /** What is being told at the moment. */
  step: DeploymentStep
  status: DeploymentStatus
}

export function PushProgress({ deployment, step, status }: Props) {
  const { data, complete } = useFragment({ fragment: PushProgressData, from: deployment })
  if (step !== 'CREATE_REPO' || status !== 'RUNNING') return null
  const progress = complete ? data.progress : null
  const known = progress && progress.total > 0 ? progress : null
  const told = known ? inWords(known) : undefined
  return (
    <div className="progress">
      <div
        className="progress-track"
        role="progressbar"
        aria-label="Pushing contents"
        aria-valuemin={known ? 0 : undefined}
        aria-valuemax={known?.total}
        aria-valuenow={known?.done}
        aria-valuetext={told}
        data-known={known !== null}
      >
        <div
          className="progress-bar"
          style={known ? { width: `${(100 * known.done) / known.total}%` } : undefined}
        />
      </div>
      {told && <p className="progress-text">{told}</p>}
    </div>
  )
}

function inWords({ done, total, unit }: { done: number; total: number; unit: string }): string {
  return unit === 'bytes' ? `${size(done)} of ${size(total)}` : `${count(done)} of ${count(total)} ${unit}`
}
