import type { Queryable } from '../../database/statement.ts'

/** What GitHub's rate limits currently mean for one credential. */
export interface RateLimitState {
  /** Milliseconds until it may send requests again; 0 or less: now. */
  pausedForMs: number
  /** Rate-limit responses in a row, each after the pause of the previous one. */
  consecutiveRateLimits: number
  /** All pauses so far: distinguishes responses to requests sent before a pause from those sent after it. */
  pauseCount: number
}

/**
 * The milliseconds to wait for the reserved slot; or, if none was reserved, how long
 * the wait would have been.
 */
export type Reservation = { isReserved: boolean; waitMs: number }

/**
 * Stores until when each credential is paused, and assigns write slots. All nodes share it through the
 * database: a pause applies to all of them and survives a restart.
 */
export abstract class RateLimitStore {
  abstract state(credentialId: string): Promise<RateLimitState>

  /**
   * Reserves the next write slot, `spacingMs` after the previous one, unless it is
   * more than `maxWaitMs` away.
   */
  abstract reserveWrite(credentialId: string, spacingMs: number, maxWaitMs: number): Promise<Reservation>

  /** Counts a new repository, unless there were already `maxPerHour` in this hour. */
  abstract reserveCreation(credentialId: string, maxPerHour: number): Promise<Reservation>

  /**
   * Records a rate-limit response to a request sent in `state`. Only the first one of a pause counts: the
   * others are responses to requests that were already in flight.
   */
  abstract recordRateLimit(
    credentialId: string,
    state: RateLimitState,
    limit: { pauseMs: number; isWrite: boolean },
  ): Promise<RateLimitState>

  /** Records a successful response. A read proves nothing about a limit on writes. */
  abstract recordSuccess(credentialId: string, state: RateLimitState, isWrite: boolean): Promise<void>
}

const NEVER_LIMITED: RateLimitState = { pausedForMs: 0, consecutiveRateLimits: 0, pauseCount: 0 }

const STATE_COLUMNS = `
  coalesce(extract(epoch from c.paused_until - clock_timestamp()) * 1000, 0)::float8 as "pausedForMs",
  c.consecutive_rate_limits as "consecutiveRateLimits", c.pause_count as "pauseCount"`

/** Keeps one row per credential in the table `github_credentials`. All times are the database's. */
export class PostgresRateLimitStore extends RateLimitStore {
  private readonly database: Queryable

  constructor(database: Queryable) {
    super()
    this.database = database
  }

  async state(credentialId: string): Promise<RateLimitState> {
    const [row] = await this.database.query<RateLimitState>(
      `select ${STATE_COLUMNS} from github_credentials c where id = $1`,
      [credentialId],
    )
    return row ?? NEVER_LIMITED
  }

  async reserveWrite(credentialId: string, spacingMs: number, maxWaitMs: number): Promise<Reservation> {
    const [reserved] = await this.database.query<{ waitMs: number }>(RESERVE_WRITE, [
      credentialId,
      spacingMs,
      maxWaitMs,
    ])
    if (reserved) return { isReserved: true, waitMs: reserved.waitMs }
    const [row] = await this.database.query<{ waitMs: number }>(
      `select extract(epoch from next_write_at - clock_timestamp())::float8 * 1000 as "waitMs"
       from github_credentials where id = $1`,
      [credentialId],
    )
    return { isReserved: false, waitMs: row?.waitMs ?? maxWaitMs }
  }

  async reserveCreation(credentialId: string, maxPerHour: number): Promise<Reservation> {
    const reserved = await this.database.query(RESERVE_CREATION, [credentialId, maxPerHour])
    if (reserved.length > 0) return { isReserved: true, waitMs: 0 }
    const [row] = await this.database.query<{ waitMs: number }>(
      `select extract(epoch from creation_window_start + interval '1 hour' - clock_timestamp())::float8 * 1000 as "waitMs"
       from github_credentials where id = $1`,
      [credentialId],
    )
    return { isReserved: false, waitMs: row?.waitMs ?? 0 }
  }

  async recordRateLimit(
    credentialId: string,
    state: RateLimitState,
    { pauseMs, isWrite }: { pauseMs: number; isWrite: boolean },
  ): Promise<RateLimitState> {
    const [row] = await this.database.query<RateLimitState>(RECORD_RATE_LIMIT, [
      credentialId,
      pauseMs,
      state.pauseCount,
      isWrite,
    ])
    if (!row) throw new Error('An insert returned no row.')
    return row
  }

  async recordSuccess(credentialId: string, state: RateLimitState, isWrite: boolean): Promise<void> {
    if (state.consecutiveRateLimits === 0) return
    await this.database.query(
      `update github_credentials set consecutive_rate_limits = 0, paused_until = null
       where id = $1 and pause_count = $2 and ($3 or not limited_by_write)`,
      [credentialId, state.pauseCount, isWrite],
    )
  }
}

const RESERVE_WRITE = `
  insert into github_credentials as c (id, next_write_at) values ($1, clock_timestamp() + $2 * interval '1 ms')
  on conflict (id) do update
    set next_write_at = greatest(c.next_write_at, clock_timestamp()) + $2 * interval '1 ms'
    where c.next_write_at <= clock_timestamp() + $3 * interval '1 ms'
  returning greatest(0, extract(epoch from c.next_write_at - clock_timestamp())::float8 * 1000 - $2::float8) as "waitMs"`

const RESERVE_CREATION = `
  insert into github_credentials as c (id, creation_window_start, creation_count) values ($1, clock_timestamp(), 1)
  on conflict (id) do update set
    creation_window_start = case when c.creation_window_start > clock_timestamp() - interval '1 hour' then c.creation_window_start
      else clock_timestamp() end,
    creation_count = case when c.creation_window_start > clock_timestamp() - interval '1 hour' then c.creation_count + 1 else 1 end
    where c.creation_count < $2 or c.creation_window_start <= clock_timestamp() - interval '1 hour'
  returning c.creation_count`

const RECORD_RATE_LIMIT = `
  insert into github_credentials as c (id, paused_until, consecutive_rate_limits, pause_count, limited_by_write)
  values ($1, clock_timestamp() + $2 * interval '1 ms', 1, $3::int + 1, $4)
  on conflict (id) do update set
    paused_until = greatest(c.paused_until, excluded.paused_until),
    limited_by_write = c.limited_by_write and c.consecutive_rate_limits > 0 or excluded.limited_by_write,
    consecutive_rate_limits = case when c.pause_count = $3 then c.consecutive_rate_limits + 1 else c.consecutive_rate_limits end,
    pause_count = case when c.pause_count = $3 then c.pause_count + 1 else c.pause_count end
  returning ${STATE_COLUMNS}`
