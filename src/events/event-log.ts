import { Injectable, Logger } from '@nestjs/common'
import { PubSubEngine } from 'graphql-subscriptions'
import { Database } from '../database/database.ts'
import { UnknownCursorError } from '../errors.ts'
import { ACTIVE_STATUSES, type DeploymentSnapshot, type LoggedEvent } from './logged-event.ts'

/** The PubSub topic that tells of appended events. */
export const DEPLOYMENTS_TOPIC = 'deployments'

/**
 * "Look": there may be something new. The event itself is carried along where it is at hand, which saves a read; from
 * another node it comes as JSON makes it, its time as a text.
 */
export interface EventNotification {
  /** The log that the event is of. An event of another one is not taken. */
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

/** Some events of one deployment. */
export interface EventRange {
  deploymentId: string
  /** Those after this one. */
  sequence: number
  limit: number
}

/** A place in a log, by which another log can be told from it. */
export interface LogPosition {
  /** Names this log in cursors. */
  logId: number
  /** Of an event; 0 before the first. */
  position: number
  /** That event's. */
  eventId: number
}

/** The ordered log of all events: the truth. What is not in it did not happen. */
@Injectable()
export class EventLog {
  private readonly logger = new Logger(EventLog.name)
  /** As of the last look; a hint that carries an old id only makes its receivers look. */
  private logId: number | undefined

  constructor(
    private readonly database: Database,
    private readonly pubSub: PubSubEngine,
  ) {}

  /**
   * Runs a change that appends one event in its own transaction, then says "look". `change` resolves after its commit,
   * to the row of `append_event`, or to undefined where it did not apply.
   */
  async append<Row extends EventRow>(change: () => Promise<Row | undefined>): Promise<Row | undefined> {
    const [row] = await this.appendAll(async () => {
      const changed = await change()
      return changed ? [changed] : []
    })
    return row
  }

  /** The same for a change that appends any number of events. */
  async appendAll<Row extends EventRow>(change: () => Promise<Row[]>): Promise<Row[]> {
    let rows: Row[]
    try {
      rows = await change()
    } catch (error) {
      // The connection may have broken after the commit: somebody has to look.
      await this.notify({})
      throw error
    }
    for (const row of rows.toSorted((a, b) => a.position - b.position)) {
      await this.notify({ logId: this.logId, event: toEvent(row) })
    }
    return rows
  }

  async readHead(): Promise<LogPosition> {
    const [place] = await this.database.query<LogPosition>(
      'select id as "logId", head as position, event_id as "eventId" from log',
    )
    if (!place) throw new Error('The table "log" is empty; it must have one row. Restore it from a backup.')
    this.logId = place.logId
    return place
  }

  /** At most `limit` events after a place, in order; undefined where the log is another one, or has lost the place. */
  async readNext(
    { logId, position, eventId }: LogPosition,
    limit: number,
  ): Promise<LoggedEvent[] | undefined> {
    const rows = await this.database.query<EventRow & { log_id: number }>(
      `select e.*, (select id from log) as log_id from events e where position >= $1 order by position limit $2`,
      [position, limit + 1],
    )
    const isThere = position === 0 || (rows[0]?.position === position && rows[0].event_id === eventId)
    if (!isThere || rows.some((row) => row.log_id !== logId)) return undefined
    return rows.filter((row) => row.position > position).map(toEvent)
  }

  /**
   * Gives the log another id, by which the cursors of what it has lost are known, and tells all nodes to look. Does
   * nothing where it has the place after all, or has another id already: one of the nodes that notice does it.
   */
  async rotateLogId({ logId, position, eventId }: LogPosition): Promise<void> {
    const renamed = await this.database.query(
      `update log set id = 1000 + (id - 1000 + 1 + floor(random() * 7998)::int) % 8000
       where id = $1 and not exists (select from events where position = $2 and event_id = $3) returning id`,
      [logId, position, eventId],
    )
    if (renamed.length > 0) await this.notify({})
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

  /** For each range at most `limit` events of its deployment after `sequence`, in order. One statement for all. */
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
   * The newest event of each active deployment (or of the one named, active or not) with positions in (after, until],
   * in order, at most `limit`. A deployment that has moved on beyond `until` is left out: its newer events follow.
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

  /** Never rejects: what is stored is stored, whether or not others have heard of it. */
  private async notify(hint: EventNotification): Promise<void> {
    try {
      await this.pubSub.publish(DEPLOYMENTS_TOPIC, hint)
    } catch (error) {
      this.logger.warn('Could not tell of an event; others find it by their own look', { error })
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
 * A place in the log, as clients keep it: four digits that name the log, twelve digits of position. All have the same
 * length, so they sort as text as they do as numbers. For clients a cursor is opaque.
 */
export function toCursor(logId: number, position: number): string {
  return `${logId}${String(position).padStart(12, '0')}`
}

/** @throws CursorUnknown unless the cursor is one of this log. */
export function positionOf(cursor: string, logId: number): number {
  if (!/^\d{16}$/.test(cursor) || Number(cursor.slice(0, 4)) !== logId) throw new UnknownCursorError(cursor)
  return Number(cursor.slice(4))
}
