import { type RefObject, useRef } from 'react'
import { files as filesInWords, size } from '../format.ts'
import { type FieldErrors, sentence } from './field-errors.ts'
import type { Reading } from './use-file-selection.ts'

interface Props {
  reading: Reading
  onPick(list: FileList): void
  onRemove(): void
  faults: FieldErrors
}

const mostListed = 200
const mostFaultsListed = 8

/** The files that will be deployed: dropped anywhere on the page, or picked here. */
export function FileFields({ reading, onPick, onRemove, faults }: Props) {
  const folderInput = useRef<HTMLInputElement>(null)
  const filesInput = useRef<HTMLInputElement>(null)
  const general = faults.at('contents.files')
  const files = reading.state === 'read' ? reading.contents.files : []
  const below = faults.below('contents.files[')

  return (
    <fieldset className="files">
      <legend>Files</legend>
      <div className="dropzone" data-state={reading.state}>
        {reading.state === 'none' && <p>Drop a folder or files anywhere on this page, or</p>}
        {reading.state === 'refused' && (
          <p className="fault" role="alert">
            {reading.reason}
          </p>
        )}
        {reading.state === 'reading' && (
          <p role="status">
            {reading.total === 0 ? 'Looking through the folder…' : `Reading ${filesInWords(reading.total)}…`}
          </p>
        )}
        {reading.state === 'read' && (
          <div role="status">
            <p className="files-sum">
              <b>
                {filesInWords(files.length)}, {size(reading.contents.sizeBytes)}
              </b>
            </p>
            {reading.contents.skipped > 0 && (
              <p className="hint">
                {reading.contents.skipped} left out: .git folders and what operating systems leave behind
              </p>
            )}
          </div>
        )}
        <div className="files-buttons">
          <button
            type="button"
            className="button"
            aria-invalid={general || below.length > 0 ? true : undefined}
            aria-describedby={general ? 'files-fault' : below.length > 0 ? 'files-faults' : undefined}
            onClick={() => folderInput.current?.click()}
          >
            Choose a folder
          </button>
          <button type="button" className="button" onClick={() => filesInput.current?.click()}>
            Choose files
          </button>
          {reading.state !== 'none' && (
            <button type="button" className="button button-quiet" onClick={onRemove}>
              {reading.state === 'reading' ? 'Stop' : 'Remove'}
            </button>
          )}
        </div>
      </div>
      <Picker input={folderInput} label="Folder to deploy" isFolder onPick={onPick} />
      <Picker input={filesInput} label="Files to deploy" isFolder={false} onPick={onPick} />
      {general && (
        <p className="fault" id="files-fault">
          {general}
        </p>
      )}
      {below.length > 0 && (
        <ul className="fault fault-list" id="files-faults">
          {below.slice(0, mostFaultsListed).map(({ path, reason }) => (
            <li key={path + reason}>
              <code>{files[indexIn(path)]?.path ?? path}</code> {reason}
            </li>
          ))}
          {below.length > mostFaultsListed && (
            <li>{sentence(`and ${below.length - mostFaultsListed} more`)}</li>
          )}
        </ul>
      )}
      {files.length > 0 && (
        <details className="files-list">
          <summary>Show the paths</summary>
          <ul>
            {files.slice(0, mostListed).map((file) => (
              <li key={file.path}>{file.path}</li>
            ))}
            {files.length > mostListed && <li>… and {filesInWords(files.length - mostListed)} more</li>}
          </ul>
        </details>
      )}
    </fieldset>
  )
}

interface PickerProps {
  input: RefObject<HTMLInputElement | null>
  label: string
  isFolder: boolean
  onPick(list: FileList): void
}

/** Every browser knows it; the types do not. */
const foldersOnly = { webkitdirectory: '' }

/** Out of the way of the keyboard and of voices: the buttons open it. */
function Picker({ input, label, isFolder, onPick }: PickerProps) {
  return (
    <input
      ref={input}
      type="file"
      className="visually-hidden"
      tabIndex={-1}
      aria-hidden="true"
      aria-label={label}
      multiple
      {...(isFolder ? foldersOnly : {})}
      onChange={({ target }) => {
        if (target.files?.length) onPick(target.files)
        // So that the same folder, changed meanwhile, can be picked again.
        target.value = ''
      }}
    />
  )
}

function indexIn(path: string): number {
  return Number(path.match(/^contents\.files\[(\d+)\]/)?.[1])
}
