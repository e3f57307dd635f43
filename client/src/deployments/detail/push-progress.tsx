import type { FragmentType } from '@apollo/client'
import { useFragment } from '@apollo/client/react'
import { formatBytes, formatNumber } from '../../format.ts'
import type { PushProgressFragment } from '../../gql/graphql.ts'
import { graphql } from '../../gql/index.ts'
import type { StatusChange } from '../steps.ts'
import styles from './push-progress.module.css'

const PUSH_PROGRESS = graphql(`
  fragment PushProgress on Deployment {
    progress {
      done
      total
      unit
    }
  }
`)

interface Props {
  deployment: FragmentType<PushProgressFragment>
  displayed: StatusChange
}

export function PushProgress({ deployment, displayed }: Props) {
  const { data, complete } = useFragment({ fragment: PUSH_PROGRESS, from: deployment })
  if (displayed.step !== 'CREATE_REPO' || displayed.status !== 'RUNNING') return null
  const progress = complete && data.progress && data.progress.total > 0 ? data.progress : null
  const text = progress ? textOf(progress) : undefined
  return (
    <div className={styles.progress}>
      <div
        className={styles.track}
        role="progressbar"
        aria-label="Pushing contents"
        aria-valuemin={progress ? 0 : undefined}
        aria-valuemax={progress?.total}
        aria-valuenow={progress?.done}
        aria-valuetext={text}
        data-known={progress !== null}
      >
        <div
          className={styles.bar}
          style={progress ? { width: `${(100 * progress.done) / progress.total}%` } : undefined}
        />
      </div>
      {text && <p className={styles.text}>{text}</p>}
    </div>
  )
}

function textOf({ done, total, unit }: { done: number; total: number; unit: string }): string {
  return unit === 'bytes'
    ? `${formatBytes(done)} of ${formatBytes(total)}`
    : `${formatNumber(done)} of ${formatNumber(total)} ${unit}`
}
