import { Injectable, Logger } from '@nestjs/common'
import { PubSubEngine } from 'graphql-subscriptions'
import { Database } from '../database/database.ts'
import { UnknownCursorError } from '../errors.ts'
import { ACTIVE_STATUSES, type DeploymentSnapshot, type LoggedEvent } from './deployment-event.ts'

/** The PubSub topic of appended events. */
export const DEPLOYMENTS_TOPIC = 'deployments'

/**
 * The log has grown. Contains the new event if the publisher has it, which saves a read; from another node it
 * arrives as parsed JSON, with the time as text.
 */
export interface EventNotification {
  /** The event's log: an event of another log is not accepted. */
  logId?: number | undefined
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
  event_id: number
  previous_event_id: number
}

/** Events of one deployment after a sequence. */
export interface EventRange {
  deploymentId: string
  sequence: number
  limit: number
}

/** A position together with what distinguishes this log from any other. */
export interface LogPosition {
  logId: number
  /** 0 before the first event. */
  position: number
  eventId: number
}

/** The ordered log of all deployment events: the truth. What it does not contain did not happen. */
@Injectable()
export class EventLog {
  private readonly logger = new Logger(EventLog.name)
  /** As of the last read. A notification with an outdated id only makes its receivers read the log. */
  private logId: number | undefined

  constructor(
    private readonly database: Database,
    private readonly pubSub: PubSubEngine,
  ) {}

  /**
   * Runs a change that appends one event in its own transaction, then notifies. `change` resolves after its
   * commit, to the row of `append_event`, or to undefined if it did not apply.
   */
  async append<Row extends EventRow>(change: () => Promise<Row | undefined>): Promise<Row | undefined> {
    const [row] = await this.appendAll(async () => {
      const changed = await change()
      return changed ? [changed] : []
    })
    return row
  }

  /** Like `append`, for a change that appends any number of events. */
  async appendAll<Row extends EventRow>(change: () => Promise<Row[]>): Promise<Row[]> {
    let rows: Row[]
    try {
      rows = await change()
    } catch (error) {
      // The connection may have broken after the commit.
      await this.notify({})
      throw error
    }
    for (const row of rows.toSorted((a, b) => a.position - b.position)) {
      await this.notify({ logId: this.logId, event: toEvent(row) })
    }
    return rows
  }

  async readHead(): Promise<LogPosition> {
    const [row] = await this.database.query<LogPosition>(
      'select id as "logId", head as position, event_id as "eventId" from log',
    )
    if (!row) throw new Error('The table "log" is empty; it must have one row. Restore it from a backup.')
    this.logId = row.logId
    return row
  }

  /** At most `limit` events after a position, in order; undefined if the log is another or lost the event. */
  async readNext(
    { logId, position, eventId }: LogPosition,
    limit: number,
  ): Promise<LoggedEvent[] | undefined> {
    const rows = await this.database.query<EventRow & { log_id: number }>(
      `select e.*, (select id from log) as log_id from events e where position >= $1 order by position limit $2`,
      [position, limit + 1],
    )
    const isSameLog = position === 0 || (rows[0]?.position === position && rows[0].event_id === eventId)
    if (!isSameLog || rows.some((row) => row.log_id !== logId)) return undefined
    return rows.filter((row) => row.position > position).map(toEvent)
  }

  /**
   * Gives the log a new id, so that cursors of lost events are recognized, and notifies all nodes. Does
   * nothing if the log contains the event or already has another id: only the first node to notice rotates
   * it.
   */
  async rotateLogId({ logId, position, eventId }: LogPosition): Promise<void> {
    const rotated = await this.database.query(
      `update log set id = 1000 + (id - 1000 + 1 + floor(random() * 7998)::int) % 8000
       where id = $1 and not exists (select from events where position = $2 and event_id = $3) returning id`,
      [logId, position, eventId],
    )
    if (rotated.length > 0) await this.notify({})
  }

  /** At most `limit` events after a position, in order; of all deployments, or of one. */
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

  /** For each range, its events in order. One statement for all. */
  async readRanges(ranges: readonly EventRange[]): Promise<LoggedEvent[][]> {
    const rows = await this.database.query<EventRow & { range: number }>(
      `select r.range::int as range, e.*
       from unnest($1::uuid[], $2::int[], $3::int[]) with ordinality as r (deployment_id, sequence, "limit", range)
       cross join lateral (
         select * from events e where e.deployment_id = r.deployment_id and e.sequence > r.sequence
         order by e.sequence limit r."limit"
       ) e
       order by r.range, e.sequence`,
      [
        ranges.map((range) => range.deploymentId),
        ranges.map((range) => range.sequence),
        ranges.map((range) => range.limit),
      ],
    )
    const found: LoggedEvent[][] = ranges.map(() => [])
    for (const row of rows) found[row.range - 1]?.push(toEvent(row))
    return found
  }

  /**
   * The newest event of each active deployment (or of the given one, active or not) with a position in
   * (after, until], in order, at most `limit`. Omits deployments with events after `until`, which arrive
   * later.
   */
  async readLatest(range: {
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

  /** Never rejects: the events are stored, whether or not the notification arrives. */
  private async notify(notification: EventNotification): Promise<void> {
    try {
      await this.pubSub.publish(DEPLOYMENTS_TOPIC, notification)
    } catch (error) {
      this.logger.warn('Could not publish an event notification; nodes find the event at their next poll', {
        error,
      })
    }
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
    eventId: row.event_id,
    previousEventId: row.previous_event_id,
  }
}

/**
 * A position as clients keep it: four digits of log id, twelve digits of position. Because lengths are equal,
 * cursors sort as text in the order of positions. Opaque to clients.
 */
export function toCursor(logId: number, position: number): string {
  return `${logId}${String(position).padStart(12, '0')}`
}

/** @throws UnknownCursorError if the cursor belongs to another log */
export function positionOf(cursor: string, logId: number): number {
  if (!/^\d{16}$/.test(cursor) || Number(cursor.slice(0, 4)) !== logId) throw new UnknownCursorError(cursor)
  return Number(cursor.slice(4))
}
