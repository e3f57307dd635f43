import { type FormEvent, useCallback, useEffect, useId, useRef, useState } from 'react'
import type { Me } from '../auth/auth.ts'
import { useMe } from '../auth/auth-context.ts'
import { canDeploy, canDeployTo } from '../auth/permissions.ts'
import type { DeployInput } from '../gql/graphql.ts'
import type { FieldError } from '../live/request-failure.ts'
import { FieldErrors, sentence } from './field-errors.ts'
import { FileFields } from './file-fields.tsx'
import { type TemplateChoice, TemplateFields } from './template-fields.tsx'
import { Field } from './text-field.tsx'
import { useDeploy } from './use-deploy.ts'
import { useFileSelection } from './use-file-selection.ts'
import { usePageDrop } from './use-page-drop.ts'

interface Props {
  onDeploying(isDeploying: boolean): void
  onDeployed(id: string): void
}

const empty = { org: '', repo: '', description: '', branch: 'main', commitMessage: 'Initial commit' }

/** The form, for those who may deploy. */
export function NewDeployment(props: Props) {
  const me = useMe()
  return canDeploy(me) ? <DeployForm {...props} me={me} /> : <ForViewers sees={me?.sees ?? null} />
}

function ForViewers({ sees }: { sees: readonly string[] | null }) {
  return (
    <section className="card deploy" aria-labelledby="deploy-title">
      <h2 id="deploy-title">You are a viewer here</h2>
      <p className="for-viewers">
        You watch what is deployed{sees && ` to ${inWords(sees)}`}. To deploy, ask whoever runs Shipcast to
        make one of your groups a deployer.
      </p>
    </section>
  )
}

function DeployForm({ onDeploying, onDeployed, me }: Props & { me: Me | null }) {
  const ownOrgs = me?.deploysTo ?? null
  // Who deploys to one organization need not name it.
  const [texts, setTexts] = useState(() => ({
    ...empty,
    org: ownOrgs?.length === 1 ? String(ownOrgs[0]) : '',
  }))
  const [visibility, setVisibility] = useState<'PRIVATE' | 'PUBLIC'>('PRIVATE')
  const [source, setSource] = useState<'template' | 'files'>('template')
  const [template, setTemplate] = useState<TemplateChoice | null>(null)
  const { reading, drop, pick, remove } = useFileSelection()
  const { deploy, isDeploying, failure } = useDeploy()
  const [ownFaults, setOwnFaults] = useState<readonly FieldError[]>([])
  // A fault is gone from the page as soon as its field is changed.
  const [changed, setChanged] = useState<readonly string[]>([])
  const [isMoreOpen, setMoreOpen] = useState(false)
  const form = useRef<HTMLFormElement>(null)
  const group = useId()

  const noteChange = useCallback((path: string) => setChanged((before) => [...before, path]), [])
  const chooseTemplate = useCallback(
    (choice: TemplateChoice) => {
      setTemplate(choice)
      noteChange('contents')
    },
    [noteChange],
  )
  const isOver = usePageDrop(
    useCallback(
      (items) => {
        setSource('files')
        noteChange('contents')
        drop(items)
      },
      [drop, noteChange],
    ),
  )

  const faults = new FieldErrors(
    [...ownFaults, ...(failure?.fields ?? [])].filter(({ path }) => !isChanged(path, changed)),
  )
  const fieldProps = (field: keyof typeof empty) => ({
    name: field,
    value: texts[field],
    onChange: (value: string) => {
      setTexts((before) => ({ ...before, [field]: value }))
      noteChange(field)
    },
    fault: faults.at(field),
  })
  const branch = fieldProps('branch')
  const commitMessage = fieldProps('commitMessage')
  const isMoreNeeded = branch.fault !== undefined || commitMessage.fault !== undefined

  // Each submission that fails takes the person to the first thing to mend.
  // biome-ignore lint/correctness/useExhaustiveDependencies: once for each failure.
  useEffect(() => {
    form.current?.querySelector<HTMLElement>('[aria-invalid="true"]')?.focus()
  }, [ownFaults, failure])

  async function submit(event: FormEvent) {
    event.preventDefault()
    if (isDeploying) return
    const missing = missingIn(texts, source, template, reading.state, me)
    setChanged([])
    setOwnFaults(missing)
    if (missing.length > 0) return
    onDeploying(true)
    try {
      const id = await deploy(input())
      if (id !== null) onDeployed(id)
    } finally {
      onDeploying(false)
    }
  }

  function input(): DeployInput {
    const files = reading.state === 'read' ? reading.contents.files : []
    return {
      org: texts.org.trim(),
      repo: texts.repo.trim(),
      visibility,
      description: texts.description.trim() || null,
      contents: source === 'files' ? { files } : { template: template ?? { name: '' } },
      branch: texts.branch.trim(),
      commitMessage: texts.commitMessage,
    }
  }

  const fields = (
    <>
      <div className="field-pair">
        <Field
          label="Organization"
          {...fieldProps('org')}
          autoCapitalize="none"
          placeholder={ownOrgs?.[0] ?? 'acme'}
          suggestions={ownOrgs}
        />
        <Field label="Repository" {...fieldProps('repo')} autoCapitalize="none" placeholder="hello-world" />
      </div>
      <Choice
        legend="Visibility"
        name={`${group}-visibility`}
        value={visibility}
        onChange={setVisibility}
        options={[
          { value: 'PRIVATE', name: 'Private' },
          { value: 'PUBLIC', name: 'Public' },
        ]}
      />
      <Field label="Description" {...fieldProps('description')} isOptional />
      <Choice
        legend="Contents from"
        name={`${group}-source`}
        value={source}
        onChange={setSource}
        options={[
          { value: 'template', name: 'A template' },
          { value: 'files', name: 'This computer' },
        ]}
      />
      {source === 'template' ? (
        <TemplateFields choice={template} onChoose={chooseTemplate} faults={faults} />
      ) : (
        <FileFields
          reading={reading}
          onPick={(list) => {
            noteChange('contents')
            pick(list)
          }}
          onRemove={remove}
          faults={faults}
        />
      )}
      <details
        className="more"
        open={isMoreOpen || isMoreNeeded}
        onToggle={(event) => setMoreOpen(event.currentTarget.open)}
      >
        <summary>More</summary>
        <Field label="Branch" {...branch} autoCapitalize="none" />
        <Field label="Commit message" {...commitMessage} />
      </details>
    </>
  )
  const rest = faults.besides((path) => path in empty || path.startsWith(`contents.${source}`))

  return (
    <section className="card deploy" aria-labelledby="deploy-title" data-drop={isOver}>
      <h2 id="deploy-title">New deployment</h2>
      <form ref={form} onSubmit={submit} noValidate>
        {fields}
        {failure && failure.kind !== 'input' && (
          <div className="notice notice-bad" role="alert">
            <p>{failure.message}</p>
            {failure.deploymentId && (
              <p>
                <a href={`#${failure.deploymentId}`}>Show that deployment</a>
              </p>
            )}
          </div>
        )}
        {faults.hasAny && (
          <div className="notice notice-bad" role="alert">
            <p>Nothing was deployed. Mend what is marked, then press Deploy again.</p>
            {rest.map(({ path, reason }) => (
              <p key={path + reason}>
                <code>{path}</code> {sentence(reason)}
              </p>
            ))}
          </div>
        )}
        {/* Not disabled while it works: it would lose the keyboard's place. */}
        <button type="submit" className="button button-main button-wide" aria-disabled={isDeploying}>
          {isDeploying ? 'Deploying…' : failure?.kind === 'network' ? 'Try again' : 'Deploy'}
        </button>
      </form>
      {isOver && (
        <div className="drop-sign" aria-hidden="true">
          Drop to deploy these files
        </div>
      )}
    </section>
  )
}

function isChanged(path: string, changed: readonly string[]): boolean {
  return changed.some((field) => path.startsWith(field))
}

/** What only a person can tell, and where they may not go; everything else is the server's to judge. */
function missingIn(
  texts: typeof empty,
  source: 'template' | 'files',
  template: TemplateChoice | null,
  reading: string,
  me: Me | null,
): FieldError[] {
  const missing: FieldError[] = []
  const org = texts.org.trim()
  if (org === '') missing.push({ path: 'org', reason: 'must not be empty' })
  else if (!canDeployTo(me, org)) {
    missing.push({ path: 'org', reason: `must be one that you deploy to: ${inWords(me?.deploysTo ?? [])}` })
  }
  if (texts.repo.trim() === '') missing.push({ path: 'repo', reason: 'must not be empty' })
  if (source === 'template' && !template)
    missing.push({ path: 'contents', reason: 'need a template to be chosen' })
  if (source === 'files' && reading !== 'read') {
    const reason =
      reading === 'reading' ? 'are still being read' : 'must be chosen: drop or choose a folder or files'
    missing.push({ path: 'contents.files', reason })
  }
  return missing
}

function inWords(orgs: readonly string[]): string {
  return new Intl.ListFormat('en', { type: 'conjunction' }).format(orgs)
}

interface ChoiceProps<T> {
  legend: string
  name: string
  value: T
  onChange: (value: T) => void
  options: readonly { value: T; name: string }[]
}

function Choice<T extends string>({ legend, name, value, onChange, options }: ChoiceProps<T>) {
  return (
    <fieldset className="choice">
      <legend>{legend}</legend>
      <div className="choice-options">
        {options.map((option) => (
          <label key={option.value}>
            <input
              type="radio"
              className="visually-hidden"
              name={name}
              value={option.value}
              checked={option.value === value}
              onChange={() => onChange(option.value)}
            />
            <span className="segment">{option.name}</span>
          </label>
        ))}
      </div>
    </fieldset>
  )
}
