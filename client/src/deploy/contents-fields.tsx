import type { FieldErrors } from './field-errors.ts'
import { FileFields } from './file-fields.tsx'
import { RadioGroup } from './radio-group.tsx'
import { TemplateFields, type TemplateSelection } from './template-fields.tsx'
import type { FileSelection } from './use-file-selection.ts'

export type ContentsSource = 'template' | 'files'

interface Props {
  source: ContentsSource
  onSourceChange(source: ContentsSource): void
  template: TemplateSelection | null
  onTemplateChange(template: TemplateSelection): void
  files: FileSelection
  onPickFiles(files: FileList): void
  onRemoveFiles(): void
  errors: FieldErrors
}

/** What the repository will contain: a template, or files from this computer. */
export function ContentsFields({ source, onSourceChange, errors, ...props }: Props) {
  return (
    <>
      <RadioGroup
        legend="Contents from"
        value={source}
        onChange={onSourceChange}
        options={[
          { value: 'template', label: 'A template' },
          { value: 'files', label: 'This computer' },
        ]}
      />
      {source === 'template' ? (
        <TemplateFields selection={props.template} onChange={props.onTemplateChange} errors={errors} />
      ) : (
        <FileFields
          selection={props.files}
          onPick={props.onPickFiles}
          onRemove={props.onRemoveFiles}
          errors={errors}
        />
      )}
    </>
  )
}
