import { formatDuration, formatTime } from '../../format.ts'
import { useConnection } from '../../live/live-socket-context.ts'
import { useServerNowMs } from '../../live/server-clock.ts'
import { STEPS, type StatusChange, type StepState, type StepTime, stateOfStep, stepTimes } from '../steps.ts'
import styles from './step-list.module.css'

const LABELS: Record<StepState, string> = {
  done: 'done',
  running: 'running',
  waiting: 'waiting to retry',
  queued: 'queued',
  failed: 'failed',
  cancelled: 'cancelled',
  pending: 'pending',
}

interface Props {
  displayed: StatusChange | undefined
  changes: readonly StatusChange[]
}

export function StepList({ displayed, changes }: Props) {
  const times = stepTimes(changes)
  return (
    <ol className={styles.steps} aria-label="Steps">
      {STEPS.map(({ step, name }) => {
        const state = stateOfStep(step, displayed)
        return (
          <li key={step} className={styles.step} data-testid="step" data-step={step} data-state={state}>
            <span className={styles.mark} aria-hidden="true" />
            <span className={styles.name}>{name}</span>
            <span className={styles.state}>{LABELS[state]}</span>
            <span className={styles.time}>
              {step === 'DEPLOY' ? (
                <AcceptedTime first={changes[0]} />
              ) : (
                <StepDuration time={times.get(step)} state={state} />
              )}
            </span>
          </li>
        )
      })}
    </ol>
  )
}

/** The first step has no duration: it is done as soon as the request is stored. */
function AcceptedTime({ first }: { first: StatusChange | undefined }) {
  if (first?.sequence !== 1) return null
  return <time dateTime={first.at}>at {formatTime(first.at)}</time>
}

function StepDuration({ time, state }: { time: StepTime | undefined; state: StepState }) {
  const isOpen = state !== 'pending' && time?.endedAt === null
  // Without a connection the step may have ended.
  const isLive = useConnection().state === 'live'
  const nowMs = useServerNowMs(isOpen && isLive ? 1000 : null)
  if (!time || state === 'pending' || (state === 'running' && !isOpen)) return null
  const endMs = time.endedAt === null ? nowMs : Date.parse(time.endedAt)
  const durationMs = endMs - Date.parse(time.startedAt)
  return isOpen ? `${Math.max(0, Math.floor(durationMs / 1000))} s` : formatDuration(durationMs)
}
