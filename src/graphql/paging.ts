import { Field, ObjectType } from '@nestjs/graphql'
import { validate as isUuid } from 'uuid'
import { BadUserInputError, UnknownCursorError } from '../errors.ts'

/** What somebody asks for with `first` and `after`, checked. Pages go by UUIDs that grow with time. */
export interface Paging {
  limit: number
  /** The id behind which the page begins; null: with the newest. */
  before: string | null
}

/** @throws BadUserInput, CursorUnknown */
export function parsePaging(first: number, after: string | null, most: number): Paging {
  const limit = checkRange('first', first, most)
  if (after && !isUuid(after)) throw new UnknownCursorError(after)
  return { limit, before: after || null }
}

/** A Relay connection of what was found: by one more than `limit`, so that it is known whether there are more. */
export function connectionOf<Node extends { id: string }>(
  found: readonly Node[],
  { limit, before }: Paging,
): { edges: { cursor: string; node: Node }[]; pageInfo: PageInfo } {
  const edges = found.slice(0, limit).map((node) => ({ cursor: node.id, node }))
  return {
    edges,
    pageInfo: {
      hasNextPage: found.length > limit,
      hasPreviousPage: before !== null,
      startCursor: edges.at(0)?.cursor ?? null,
      endCursor: edges.at(-1)?.cursor ?? null,
    },
  }
}

/** @throws BadUserInput */
export function checkRange(path: string, value: number, most: number): number {
  if (value >= 0 && value <= most) return value
  throw new BadUserInputError([{ path, reason: `must be from 0 to ${most}` }])
}

@ObjectType({ description: 'Where a page stands among the others.' })
export class PageInfo {
  @Field({ description: 'Whether there are older ones.' })
  hasNextPage!: boolean

  @Field({ description: 'Whether the page began after a cursor.' })
  hasPreviousPage!: boolean

  @Field(() => String, { nullable: true, description: 'Cursor of the first one.' })
  startCursor!: string | null

  @Field(() => String, { nullable: true, description: 'Cursor of the last one.' })
  endCursor!: string | null
}
