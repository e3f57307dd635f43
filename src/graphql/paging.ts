import { Field, ObjectType } from '@nestjs/graphql'
import { validate as isUuid } from 'uuid'
import { BadUserInputError, UnknownCursorError } from '../errors.ts'

/** The arguments `first` and `after`, validated. Pages are ordered by time-ordered UUIDs, newest first. */
interface Paging {
  limit: number
  /** The page begins after this id; null: with the newest. */
  before: string | null
}

/** @throws BadUserInputError, UnknownCursorError */
export function parsePaging(first: number, after: string | null, max: number): Paging {
  const limit = checkRange('first', first, max)
  if (after && !isUuid(after)) throw new UnknownCursorError(after)
  return { limit, before: after || null }
}

/** A Relay connection of the rows of a page. The query reads one row more, to learn whether more follow. */
export function connectionOf<Node extends { id: string }>(
  rows: readonly Node[],
  { limit, before }: Paging,
): { edges: { cursor: string; node: Node }[]; pageInfo: PageInfo } {
  const edges = rows.slice(0, limit).map((node) => ({ cursor: node.id, node }))
  return {
    edges,
    pageInfo: {
      hasNextPage: rows.length > limit,
      hasPreviousPage: before !== null,
      startCursor: edges.at(0)?.cursor ?? null,
      endCursor: edges.at(-1)?.cursor ?? null,
    },
  }
}

/** @throws BadUserInputError */
export function checkRange(path: string, value: number, max: number): number {
  if (value >= 0 && value <= max) return value
  throw new BadUserInputError([{ path, reason: `must be from 0 to ${max}` }])
}

@ObjectType({ description: 'Relay page info.' })
export class PageInfo {
  @Field({ description: 'Whether more items follow.' })
  hasNextPage!: boolean

  @Field({ description: 'Whether the page begins after a cursor.' })
  hasPreviousPage!: boolean

  @Field(() => String, { nullable: true, description: 'The cursor of the first item.' })
  startCursor!: string | null

  @Field(() => String, { nullable: true, description: 'The cursor of the last item.' })
  endCursor!: string | null
}
