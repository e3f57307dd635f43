import { Field, ObjectType } from '@nestjs/graphql'

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
