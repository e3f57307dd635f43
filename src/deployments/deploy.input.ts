import { Extensions, Field, InputType, registerEnumType } from '@nestjs/graphql'
import type { Visibility } from '../github/github-client.ts'
import { MAX_FILES } from './contents/decode-content.ts'
import type {
  ContentsInput as Contents,
  DeployInput as Deploy,
  FileInput as File,
  TemplateInput as Template,
  VariableInput as Variable,
} from './deploy-input.ts'
import { VisibilityEnum } from './deployment.model.ts'

export const FileEncodingEnum = { UTF8: 'UTF8', BASE64: 'BASE64' } as const

registerEnumType(FileEncodingEnum, {
  name: 'FileEncoding',
  description: 'How the bytes of a file are written in `content`.',
  valuesMap: {
    UTF8: { description: 'As text.' },
    BASE64: { description: 'In base64 (RFC 4648 section 4, with padding): for what is not text.' },
  },
})

@InputType({ description: "A template's variable, and what to put there." })
export class VariableInput implements Variable {
  @Field({ description: 'Its name.' })
  name!: string

  @Field({
    description:
      'Replaces `{{name}}` in texts and paths. At most 64 KiB, without control characters other than newline and tab.',
  })
  value!: string
}

@InputType({ description: 'Contents made from a template.' })
export class TemplateInput implements Template {
  @Field({ description: 'One of `templates`.' })
  name!: string

  @Field(() => [VariableInput], {
    nullable: true,
    description:
      'Those that are `required` must be given. Others have their default when they are not, or are empty.',
  })
  variables?: VariableInput[] | null
}

@InputType({ description: 'One file.' })
export class FileInput implements File {
  @Field({
    description:
      'From the root of the repository, with `/` between folders: `src/main.ts`. What git refuses is refused; what only other systems refuse is in `Deployment.warnings`.',
  })
  path!: string

  @Field({ description: 'At most 100 MiB, and 32 MiB for the whole request.' })
  content!: string

  @Field(() => FileEncodingEnum, {
    nullable: true,
    defaultValue: FileEncodingEnum.UTF8,
    description: 'How `content` is written.',
  })
  encoding?: 'UTF8' | 'BASE64' | null

  @Field(() => Boolean, { nullable: true, defaultValue: false, description: 'Whether it is a program.' })
  executable?: boolean | null
}

@InputType({ isOneOf: true, description: 'What to put into the repository: one of these.' })
export class ContentsInput implements Contents {
  @Field(() => TemplateInput, { nullable: true, description: 'A template with its variables.' })
  template?: TemplateInput | null

  @Extensions({ maxItems: MAX_FILES })
  @Field(() => [FileInput], { nullable: true, description: 'These files; 1 to 20,000.' })
  files?: FileInput[] | null
}

@InputType({ description: 'The repository to be made.' })
export class DeployInput implements Deploy {
  @Field({ description: 'The organization: letters, digits and single hyphens within, at most 39.' })
  org!: string

  @Field({
    description:
      'The name of the repository: letters, digits, `.`, `_` and `-`, at most 100. Not `.` or `..`, and not ending in `.git` or `.wiki`.',
  })
  repo!: string

  @Field(() => VisibilityEnum, {
    nullable: true,
    defaultValue: VisibilityEnum.PRIVATE,
    description: 'Who may see it.',
  })
  visibility?: Visibility | null

  @Field(() => String, {
    nullable: true,
    description: 'One line about it, at most 350 characters, without control characters.',
  })
  description?: string | null

  @Field(() => ContentsInput, { description: 'What to put there.' })
  contents!: ContentsInput

  @Field(() => String, {
    nullable: true,
    defaultValue: 'main',
    description:
      'The branch to put it on: a name that git takes, at most 244 bytes, not `HEAD`, below `refs/` or like a commit id.',
  })
  branch?: string | null

  @Field(() => String, {
    nullable: true,
    defaultValue: 'Initial commit',
    description:
      'The message of the commit, at most 64 KiB, without control characters other than newline and tab; a `Deployment-Id:` line is added.',
  })
  commitMessage?: string | null

  @Field(() => String, {
    nullable: true,
    description:
      'Any text of yours without control characters, 1 to 255 characters; compared exactly as sent. The same key with the same input is the same deployment, however often it is sent; with another input it is an error.',
  })
  idempotencyKey?: string | null
}
