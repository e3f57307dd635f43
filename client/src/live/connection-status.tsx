import { clockTime } from '../format.ts'
import { useConnection, useLiveSocket } from './live-socket-context.ts'

const words = { live: 'Live', connecting: 'Connecting…', reconnecting: 'Reconnecting…' }

/** Whether what is on the page is what is happening now. */
export function ConnectionPill() {
  const { state } = useConnection()
  return (
    <span className="connection" data-testid="connection" data-state={state} role="status">
      <span className="connection-dot" aria-hidden="true" />
      {words[state]}
    </span>
  )
}

/** Says that the page is not live, since when, and offers to try at once. */
export function ConnectionBanner() {
  const { state, lastHeardAtMs } = useConnection()
  const socket = useLiveSocket()
  if (state !== 'reconnecting') return null
  return (
    <div className="banner" role="status">
      <p>
        <b>Reconnecting…</b> What you see is as of {lastHeardAtMs !== null && clockTime(lastHeardAtMs)} (last
        update); it goes on from there.
      </p>
      <button type="button" className="button" onClick={socket.reconnectNow}>
        Try now
      </button>
    </div>
  )
}
