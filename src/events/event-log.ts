import { Injectable } from '@nestjs/common'
import { PubSubEngine } from 'graphql-subscriptions'
import { Database } from '../database/database.ts'
import { ACTIVE_STATUSES, type DeploymentSnapshot, type LoggedEvent } from './logged-event.ts'

/** The PubSub topic that tells of appended events. */
export const DEPLOYMENTS_TOPIC = 'deployments'

/**
 * "Look": there may be something new. The event itself is carried along where it is at hand, which saves a read; from
 * another node it comes as JSON makes it, its time as a text.
 */
export interface LookHint {
  event?: LoggedEvent | (Omit<LoggedEvent, 'at'> & { at: string })
}

/** What `select e.*` of the SQL function `append_event` returns. */
export interface EventRow {
  position: number
  deployment_id: string
  sequence: number
  at: Date
  origin: string | null
  deployment: DeploymentSnapshot
}

export interface LogHead {
  /** Names this log in cursors. */
  logId: number
  /** Position of the newest event; 0 when there is none. */
  position: number
}

/** The ordered log of all events: the truth. What is not in it did not happen. */
@Injectable()
export class EventLog {
  constructor(
    private readonly database: Database,
    private readonly pubSub: PubSubEngine,
  ) {}

  /**
   * Runs a change that appends one event in its own transaction, then says "look". `change` resolves after its commit,
   * to the row of `append_event`, or to undefined where it did not apply.
   */
  async append<Row extends EventRow>(change: () => Promise<Row | undefined>): Promise<Row | undefined> {
    let row: Row | undefined
    try {
      row = await change()
    } catch (error) {
      // The connection may have broken after the commit: somebody has to look.
      await this.say({})
      throw error
    }
    if (row) await this.say({ event: toEvent(row) })
    return row
  }

  async head(): Promise<LogHead> {
    const [row] = await this.database.query<{ id: number; head: number }>('select id, head from log')
    if (!row) throw new Error('The table "log" is empty; it must have one row. Restore it from a backup.')
    return { logId: row.id, position: row.head }
  }

  /** At most `limit` events after `position`, in order; of one deployment if named. */
  async read(after: {
    position: number
    deploymentId?: string | undefined
    limit: number
  }): Promise<LoggedEvent[]> {
    const rows = after.deploymentId
      ? await this.database.query<EventRow>(
          `select * from events where deployment_id = $1 and position > $2 order by position limit $3`,
          [after.deploymentId, after.position, after.limit],
        )
      : await this.database.query<EventRow>(
          `select * from events where position > $1 order by position limit $2`,
          [after.position, after.limit],
        )
    return rows.map(toEvent)
  }

  /** At most `limit` events of one deployment after `sequence`, in order. */
  async readDeployment(after: {
    deploymentId: string
    sequence: number
    limit: number
  }): Promise<LoggedEvent[]> {
    const rows = await this.database.query<EventRow>(
      `select * from events where deployment_id = $1 and sequence > $2 order by sequence limit $3`,
      [after.deploymentId, after.sequence, after.limit],
    )
    return rows.map(toEvent)
  }

  /**
   * The newest event of each active deployment (or of the one named, active or not) with positions in (after, until],
   * in order, at most `limit`. A deployment that has moved on beyond `until` is left out: its newer events follow.
   */
  async readCurrent(range: {
    deploymentId?: string | undefined
    after: number
    until: number
    limit: number
  }): Promise<LoggedEvent[]> {
    const rows = range.deploymentId
      ? await this.database.query<EventRow>(
          `select * from events where deployment_id = $1 and position > $2 and position <= $3
           order by position desc limit 1`,
          [range.deploymentId, range.after, range.until],
        )
      : await this.database.query<EventRow>(
          `select e.* from deployments d join events e on e.deployment_id = d.id and e.sequence = d.sequence
           where d.status = any($1) and e.position > $2 and e.position <= $3 order by e.position limit $4`,
          [ACTIVE_STATUSES, range.after, range.until, range.limit],
        )
    return rows.map(toEvent)
  }

  private say(hint: LookHint): Promise<void> {
    return this.pubSub.publish(DEPLOYMENTS_TOPIC, hint)
  }
}

export function toEvent(row: EventRow): LoggedEvent {
  return {
    position: row.position,
    deploymentId: row.deployment_id,
    sequence: row.sequence,
    at: row.at,
    origin: row.origin,
    deployment: row.deployment,
  }
}
