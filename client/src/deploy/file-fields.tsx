import { type RefObject, useRef } from 'react'
import { formatBytes, formatFileCount } from '../format.ts'
import { Button } from '../ui/button.tsx'
import text from '../ui/text.module.css'
import { type FieldErrors, toSentence } from './field-errors.ts'
import styles from './file-fields.module.css'
import type { FileSelection } from './use-file-selection.ts'

interface Props {
  selection: FileSelection
  onPick(files: FileList): void
  onRemove(): void
  errors: FieldErrors
}

const MAX_LISTED_FILES = 200
const MAX_LISTED_ERRORS = 8

/** The files to deploy: dropped anywhere on the page, or picked here. */
export function FileFields({ selection, onPick, onRemove, errors }: Props) {
  const folderInput = useRef<HTMLInputElement>(null)
  const filesInput = useRef<HTMLInputElement>(null)
  const files = selection.state === 'read' ? selection.contents.files : []
  const error = errors.at('contents.files')
  const fileErrors = errors.startingWith('contents.files[')

  return (
    <fieldset className={styles.files}>
      <legend>Files</legend>
      <div className={styles.dropzone} data-state={selection.state}>
        <SelectionStatus selection={selection} />
        <div className={styles.buttons}>
          <Button
            aria-invalid={error || fileErrors.length > 0 ? true : undefined}
            aria-describedby={error ? 'files-error' : fileErrors.length > 0 ? 'file-errors' : undefined}
            onClick={() => folderInput.current?.click()}
          >
            Choose a folder
          </Button>
          <Button onClick={() => filesInput.current?.click()}>Choose files</Button>
          {selection.state !== 'none' && (
            <Button variant="quiet" onClick={onRemove}>
              {selection.state === 'reading' ? 'Stop' : 'Remove'}
            </Button>
          )}
        </div>
      </div>
      <FileInput input={folderInput} label="Folder to deploy" isFolder onPick={onPick} />
      <FileInput input={filesInput} label="Files to deploy" isFolder={false} onPick={onPick} />
      {error && (
        <p className={`${text.error} ${styles.error}`} id="files-error">
          {error}
        </p>
      )}
      {fileErrors.length > 0 && (
        <ul className={`${text.error} ${styles.error} ${styles.errorList}`} id="file-errors">
          {fileErrors.slice(0, MAX_LISTED_ERRORS).map(({ path, reason }) => (
            <li key={path + reason}>
              <code>{files[fileIndexOf(path)]?.path ?? path}</code> {reason}
            </li>
          ))}
          {fileErrors.length > MAX_LISTED_ERRORS && (
            <li>{toSentence(`and ${fileErrors.length - MAX_LISTED_ERRORS} more`)}</li>
          )}
        </ul>
      )}
      {files.length > 0 && (
        <details className={styles.list}>
          <summary>Show paths</summary>
          <ul>
            {files.slice(0, MAX_LISTED_FILES).map((file) => (
              <li key={file.path}>{file.path}</li>
            ))}
            {files.length > MAX_LISTED_FILES && <li>… and {files.length - MAX_LISTED_FILES} more</li>}
          </ul>
        </details>
      )}
    </fieldset>
  )
}

function SelectionStatus({ selection }: { selection: FileSelection }) {
  switch (selection.state) {
    case 'none':
      return <p>Drop a folder or files anywhere on this page, or</p>
    case 'failed':
      return (
        <p className={`${text.error} ${styles.error}`} role="alert">
          {selection.reason}
        </p>
      )
    case 'reading':
      return (
        <p role="status">
          {selection.total === 0 ? 'Listing files…' : `Reading ${formatFileCount(selection.total)}…`}
        </p>
      )
    case 'read': {
      const { files, sizeBytes, ignoredCount } = selection.contents
      return (
        <div role="status">
          <p>
            <b>
              {formatFileCount(files.length)}, {formatBytes(sizeBytes)}
            </b>
          </p>
          {ignoredCount > 0 && (
            <p className={text.hint}>{ignoredCount} ignored: .git folders and operating system files</p>
          )}
        </div>
      )
    }
  }
}

interface FileInputProps {
  input: RefObject<HTMLInputElement | null>
  label: string
  isFolder: boolean
  onPick(files: FileList): void
}

/** Supported by every browser, but missing from React's types. */
const FOLDERS_ONLY = { webkitdirectory: '' }

/** Hidden from keyboards and screen readers: the buttons open it. */
function FileInput({ input, label, isFolder, onPick }: FileInputProps) {
  return (
    <input
      ref={input}
      type="file"
      className="visually-hidden"
      tabIndex={-1}
      aria-hidden="true"
      aria-label={label}
      multiple
      {...(isFolder ? FOLDERS_ONLY : {})}
      onChange={({ target }) => {
        if (target.files?.length) onPick(target.files)
        // Cleared, so that picking the same folder again is a change.
        target.value = ''
      }}
    />
  )
}

function fileIndexOf(path: string): number {
  return Number(path.match(/^contents\.files\[(\d+)\]/)?.[1])
}
