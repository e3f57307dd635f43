import { Field, Int, ObjectType } from '@nestjs/graphql'

@ObjectType({ description: 'A variable of a template.' })
class TemplateVariable {
  @Field({ description: 'The name, as in `{{name}}`.' })
  name!: string

  @Field({ description: 'What the variable is for.' })
  description!: string

  @Field(() => String, { nullable: true, description: 'The value used if none is given.' })
  default!: string | null

  @Field({ description: 'Whether a value is mandatory.' })
  required!: boolean
}

@ObjectType({ description: 'Predefined contents for a repository.' })
export class Template {
  @Field({ description: 'The value for `contents.template.name`.' })
  name!: string

  @Field({ description: 'The display name.' })
  title!: string

  @Field({ description: 'What the template is.' })
  description!: string

  @Field(() => [TemplateVariable], { description: 'Its variables.' })
  variables!: TemplateVariable[]

  @Field(() => Int, { description: 'The number of files it creates.' })
  fileCount!: number
}
