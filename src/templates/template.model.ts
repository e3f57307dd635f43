import { Field, Int, ObjectType } from '@nestjs/graphql'

@ObjectType({ description: 'What a template asks for.' })
export class TemplateVariable {
  @Field({ description: 'Its name, as in `{{name}}`.' })
  name!: string

  @Field({ description: 'What it is for.' })
  description!: string

  @Field(() => String, { nullable: true, description: 'Taken where no value is given.' })
  default!: string | null

  @Field({ description: 'Whether a value must be given.' })
  required!: boolean
}

@ObjectType({ description: 'Contents to start from.' })
export class Template {
  @Field({ description: 'What to give as `contents.template.name`.' })
  name!: string

  @Field({ description: 'Its name for people.' })
  title!: string

  @Field({ description: 'What it is.' })
  description!: string

  @Field(() => [TemplateVariable], { description: 'What it asks for.' })
  variables!: TemplateVariable[]

  @Field(() => Int, { description: 'How many files it makes.' })
  fileCount!: number
}
