import { formatTime } from '../format.ts'
import { Button } from '../ui/button.tsx'
import styles from './connection-status.module.css'
import { useConnection, useLiveSocket } from './live-socket-context.ts'

const LABELS = { live: 'Live', connecting: 'Connecting…', reconnecting: 'Reconnecting…' }

export function ConnectionPill() {
  const { state } = useConnection()
  return (
    <span className={styles.pill} data-testid="connection" data-state={state} role="status">
      <span className={styles.dot} aria-hidden="true" />
      {LABELS[state]}
    </span>
  )
}

/** While the connection is lost: the time of the data, and a button to reconnect now. */
export function ConnectionBanner() {
  const { state, lastMessageAtMs } = useConnection()
  const socket = useLiveSocket()
  if (state !== 'reconnecting') return null
  return (
    <div className={styles.banner} role="status">
      <p>
        <b>Reconnecting…</b> Showing data as of {lastMessageAtMs !== null && formatTime(lastMessageAtMs)}.
        Updates resume once reconnected.
      </p>
      <Button onClick={socket.reconnectNow}>Reconnect now</Button>
    </div>
  )
}
