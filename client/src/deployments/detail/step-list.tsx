import { clockTime, duration } from '../../format.ts'
import { useConnection } from '../../live/live-socket-context.ts'
import { type StatusChange, type StepState, type StepTime, stateOfStep, steps, stepTimes } from '../steps.ts'
import { useNowMs } from '../use-now.ts'

const words: Record<StepState, string> = {
  done: 'done',
  running: 'running',
  waiting: 'waiting to try again',
  queued: 'queued',
  failed: 'failed',
  cancelled: 'cancelled',
  pending: 'to come',
}

export function StepList({
  shown,
  changes,
}: {
  shown: StatusChange | undefined
  changes: readonly StatusChange[]
}) {
  const times = stepTimes(changes)
  return (
    <ol className="steps" aria-label="Steps">
      {steps.map(({ step, name }) => {
        const state = stateOfStep(step, shown)
        return (
          <li key={step} className="step" data-testid="step" data-step={step} data-state={state}>
            <span className="step-mark" aria-hidden="true" />
            <span className="step-name">{name}</span>
            <span className="step-state">{words[state]}</span>
            <span className="step-time">
              {step === 'DEPLOY' ? (
                <Accepted changes={changes} />
              ) : (
                <Took time={times.get(step)} isShown={state !== 'pending'} isRunning={state === 'running'} />
              )}
            </span>
          </li>
        )
      })}
    </ol>
  )
}

/** The first step takes no time: it is the request being stored. */
function Accepted({ changes }: { changes: readonly StatusChange[] }) {
  const [first] = changes
  if (first?.sequence !== 1) return null
  return <time dateTime={first.at}>at {clockTime(first.at)}</time>
}

function Took({
  time,
  isShown,
  isRunning,
}: {
  time: StepTime | undefined
  isShown: boolean
  isRunning: boolean
}) {
  const isOpen = isShown && time?.endedAt === null
  // While the connection is lost nobody knows whether the step still goes on.
  const isLive = useConnection().state === 'live'
  const nowMs = useNowMs(isOpen && isLive ? 1000 : null)
  if (!time || !isShown || (isRunning && !isOpen)) return null
  const endMs = time.endedAt === null ? nowMs : Date.parse(time.endedAt)
  const tookMs = endMs - Date.parse(time.startedAt)
  return <>{isOpen ? `${Math.max(0, Math.floor(tookMs / 1000))} s` : duration(tookMs)}</>
}
