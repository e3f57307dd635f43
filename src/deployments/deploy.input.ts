import { Extensions, Field, InputType, registerEnumType } from '@nestjs/graphql'
import type { Visibility } from '../github/github-client.ts'
import { type FileEncoding, MAX_FILES } from './contents/decode-content.ts'
import { VisibilityEnum } from './deployment.model.ts'

// When the service receives these, GraphQL has validated types, but not values. Any
// optional field may be null.

const FileEncodingEnum = { UTF8: 'UTF8', BASE64: 'BASE64' } as const satisfies {
  [Encoding in FileEncoding]: Encoding
}

registerEnumType(FileEncodingEnum, {
  name: 'FileEncoding',
  description: 'How `content` encodes the bytes of a file.',
  valuesMap: {
    UTF8: { description: 'As text.' },
    BASE64: { description: 'As base64 (RFC 4648 section 4, with padding), for binary files.' },
  },
})

@InputType({ description: 'A value for a variable of a template.' })
export class VariableInput {
  @Field({ description: 'The name of the variable.' })
  name!: string

  @Field({
    description:
      'Replaces `{{name}}` in files and paths. At most 64 KiB, without control characters other than newline and tab.',
  })
  value!: string
}

@InputType({ description: 'Contents created from a template.' })
class TemplateInput {
  @Field({ description: 'The name of one of `templates`.' })
  name!: string

  @Field(() => [VariableInput], {
    nullable: true,
    description:
      'Values for its variables. Those that are `required` must be given; others default if missing or empty.',
  })
  variables?: VariableInput[] | null
}

@InputType({ description: 'A file.' })
export class FileInput {
  @Field({
    description:
      'The path from the root of the repository, with `/` between folders: `src/main.ts`. Paths that git rejects are an error; paths that only other systems reject are listed in `Deployment.warnings`.',
  })
  path!: string

  @Field({ description: 'At most 100 MiB, and 32 MiB for the whole request.' })
  content!: string

  @Field(() => FileEncodingEnum, {
    nullable: true,
    defaultValue: FileEncodingEnum.UTF8,
    description: 'How `content` is encoded.',
  })
  encoding?: FileEncoding | null

  @Field(() => Boolean, {
    nullable: true,
    defaultValue: false,
    description: 'Whether the executable bit is set.',
  })
  executable?: boolean | null
}

@InputType({ isOneOf: true, description: 'The contents of the repository: exactly one of these fields.' })
export class ContentsInput {
  @Field(() => TemplateInput, { nullable: true, description: 'A template with values for its variables.' })
  template?: TemplateInput | null

  @Extensions({ maxItems: MAX_FILES })
  @Field(() => [FileInput], { nullable: true, description: 'These files: 1 to 20,000.' })
  files?: FileInput[] | null
}

@InputType({ description: 'The repository to create.' })
export class DeployInput {
  @Field({
    description:
      'The organization: at most 39 letters, digits and single hyphens, with no hyphen at either end.',
  })
  org!: string

  @Field({
    description:
      'The name of the repository: at most 100 letters, digits, `.`, `_` and `-`. Not `.` or `..`, and not ending in `.git` or `.wiki`.',
  })
  repo!: string

  @Field(() => VisibilityEnum, {
    nullable: true,
    defaultValue: VisibilityEnum.PRIVATE,
    description: 'Who can see the repository.',
  })
  visibility?: Visibility | null

  @Field(() => String, {
    nullable: true,
    description: 'The description of the repository: one line of at most 350 characters.',
  })
  description?: string | null

  @Field(() => ContentsInput, { description: 'The contents of the repository.' })
  contents!: ContentsInput

  @Field(() => String, {
    nullable: true,
    defaultValue: 'main',
    description:
      'The branch to push to: a valid git branch name of at most 244 bytes. Not `HEAD`, not beginning with `refs/`, and not resembling a commit id.',
  })
  branch?: string | null

  @Field(() => String, {
    nullable: true,
    defaultValue: 'Initial commit',
    description:
      'The commit message: at most 64 KiB, without control characters other than newline and tab. A `Deployment-Id:` trailer is added.',
  })
  commitMessage?: string | null

  @Field(() => String, {
    nullable: true,
    description:
      'Any text of 1 to 255 characters without control characters, compared exactly. Repeating a key with the same input returns the same deployment, however often it is sent; with another input it is an error.',
  })
  idempotencyKey?: string | null
}
