import { type FormEvent, useCallback, useEffect, useRef, useState } from 'react'
import type { Me } from '../auth/auth.ts'
import { useMe } from '../auth/auth-context.ts'
import { canDeploy } from '../auth/permissions.ts'
import type { DeployInput } from '../gql/graphql.ts'
import type { FieldError, RequestFailure } from '../live/request-failure.ts'
import { Button } from '../ui/button.tsx'
import { Card } from '../ui/card.tsx'
import { Notice } from '../ui/notice.tsx'
import { ContentsFields, type ContentsSource } from './contents-fields.tsx'
import styles from './deploy-form.module.css'
import { FieldErrors, toSentence } from './field-errors.ts'
import { findMissingFields } from './missing-fields.ts'
import { RadioGroup } from './radio-group.tsx'
import type { TemplateSelection } from './template-fields.tsx'
import { TextField } from './text-field.tsx'
import { useDeploy } from './use-deploy.ts'
import { useFileSelection } from './use-file-selection.ts'
import { usePageDrop } from './use-page-drop.ts'
import { ViewOnlyNotice } from './view-only-notice.tsx'

interface Props {
  onDeploying(isDeploying: boolean): void
  onDeployed(id: string): void
}

const INITIAL_VALUES = { org: '', repo: '', description: '', branch: 'main', commitMessage: 'Initial commit' }

export function NewDeployment(props: Props) {
  const me = useMe()
  return canDeploy(me) ? <DeployForm {...props} me={me} /> : <ViewOnlyNotice orgs={me?.sees ?? null} />
}

function DeployForm({ onDeploying, onDeployed, me }: Props & { me: Me | null }) {
  const deploysTo = me?.deploysTo ?? null
  const [values, setValues] = useState(() => ({
    ...INITIAL_VALUES,
    org: deploysTo?.length === 1 ? String(deploysTo[0]) : '',
  }))
  const [visibility, setVisibility] = useState<'PRIVATE' | 'PUBLIC'>('PRIVATE')
  const [source, setSource] = useState<ContentsSource>('template')
  const [template, setTemplate] = useState<TemplateSelection | null>(null)
  const { selection: files, drop, pick, remove } = useFileSelection()
  const { deploy, isDeploying, failure } = useDeploy()
  const [missingFields, setMissingFields] = useState<readonly FieldError[]>([])
  // An error disappears as soon as its field changes.
  const [changedPaths, setChangedPaths] = useState<readonly string[]>([])
  const [isMoreOpen, setMoreOpen] = useState(false)
  const form = useRef<HTMLFormElement>(null)

  const markChanged = useCallback((path: string) => setChangedPaths((before) => [...before, path]), [])
  const changeTemplate = useCallback(
    (selection: TemplateSelection) => {
      setTemplate(selection)
      markChanged('contents')
    },
    [markChanged],
  )
  const isDragging = usePageDrop(
    useCallback(
      (items) => {
        setSource('files')
        markChanged('contents')
        drop(items)
      },
      [drop, markChanged],
    ),
  )

  const errors = new FieldErrors(
    [...missingFields, ...(failure?.fields ?? [])].filter(({ path }) => !isChanged(path, changedPaths)),
  )
  const propsOf = (name: keyof typeof INITIAL_VALUES) => ({
    name,
    value: values[name],
    onChange: (value: string) => {
      setValues((before) => ({ ...before, [name]: value }))
      markChanged(name)
    },
    error: errors.at(name),
  })
  const branch = propsOf('branch')
  const commitMessage = propsOf('commitMessage')
  const hasErrorInMore = branch.error !== undefined || commitMessage.error !== undefined
  const isDisplayed = (path: string) => path in INITIAL_VALUES || path.startsWith(`contents.${source}`)

  // Each failed submission moves the focus to the first invalid field.
  // biome-ignore lint/correctness/useExhaustiveDependencies: once for each failure.
  useEffect(() => {
    form.current?.querySelector<HTMLElement>('[aria-invalid="true"]')?.focus()
  }, [missingFields, failure])

  async function submit(event: FormEvent) {
    event.preventDefault()
    if (isDeploying) return
    const { org, repo } = values
    const missing = findMissingFields({
      org,
      repo,
      source,
      hasTemplate: template !== null,
      files: files.state,
      deploysTo,
    })
    setChangedPaths([])
    setMissingFields(missing)
    if (missing.length > 0) return
    onDeploying(true)
    try {
      const id = await deploy(toInput())
      if (id !== null) onDeployed(id)
    } finally {
      onDeploying(false)
    }
  }

  function toInput(): Omit<DeployInput, 'idempotencyKey'> {
    const read = files.state === 'read' ? files.contents.files : []
    return {
      org: values.org.trim(),
      repo: values.repo.trim(),
      visibility,
      description: values.description.trim() || null,
      contents: source === 'files' ? { files: read } : { template: template ?? { name: '' } },
      branch: values.branch.trim(),
      commitMessage: values.commitMessage,
    }
  }

  return (
    <Card className={styles.card} aria-labelledby="deploy-title" data-drop={isDragging}>
      <h2 id="deploy-title">New deployment</h2>
      <form ref={form} onSubmit={submit} noValidate>
        <div className={styles.pair}>
          <TextField
            label="Organization"
            {...propsOf('org')}
            autoCapitalize="none"
            placeholder={deploysTo?.[0] ?? 'acme'}
            suggestions={deploysTo}
          />
          <TextField
            label="Repository"
            {...propsOf('repo')}
            autoCapitalize="none"
            placeholder="hello-world"
          />
        </div>
        <RadioGroup
          legend="Visibility"
          value={visibility}
          onChange={setVisibility}
          options={[
            { value: 'PRIVATE', label: 'Private' },
            { value: 'PUBLIC', label: 'Public' },
          ]}
        />
        <TextField label="Description" {...propsOf('description')} isOptional />
        <ContentsFields
          source={source}
          onSourceChange={setSource}
          template={template}
          onTemplateChange={changeTemplate}
          files={files}
          onPickFiles={(picked) => {
            markChanged('contents')
            pick(picked)
          }}
          onRemoveFiles={remove}
          errors={errors}
        />
        <details
          className={styles.more}
          open={isMoreOpen || hasErrorInMore}
          onToggle={(event) => setMoreOpen(event.currentTarget.open)}
        >
          <summary>More options</summary>
          <TextField label="Branch" {...branch} autoCapitalize="none" />
          <TextField label="Commit message" {...commitMessage} />
        </details>
        {failure && failure.kind !== 'input' && <FailedRequest failure={failure} />}
        {errors.hasAny && <InvalidInput otherErrors={errors.except(isDisplayed)} />}
        {/* Not disabled while deploying: the button would lose keyboard focus. */}
        <Button type="submit" variant="primary" size="large" aria-disabled={isDeploying}>
          {isDeploying ? 'Deploying…' : failure?.kind === 'network' ? 'Try again' : 'Deploy'}
        </Button>
      </form>
      {isDragging && (
        <div className={styles.dropTarget} aria-hidden="true">
          Drop to deploy these files
        </div>
      )}
    </Card>
  )
}

function FailedRequest({ failure: { message, deploymentId } }: { failure: RequestFailure }) {
  return (
    <Notice tone="error">
      <p>{message}</p>
      {deploymentId && (
        <p>
          <a href={`#${deploymentId}`}>Show that deployment</a>
        </p>
      )}
    </Notice>
  )
}

function InvalidInput({ otherErrors }: { otherErrors: readonly FieldError[] }) {
  return (
    <Notice tone="error">
      <p>Nothing was deployed. Fix the highlighted fields and deploy again.</p>
      {otherErrors.map(({ path, reason }) => (
        <p key={path + reason}>
          <code>{path}</code> {toSentence(reason)}
        </p>
      ))}
    </Notice>
  )
}

function isChanged(path: string, changedPaths: readonly string[]): boolean {
  return changedPaths.some((changed) => path.startsWith(changed))
}
