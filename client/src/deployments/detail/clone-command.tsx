import type { FragmentType } from '@apollo/client'
import { useFragment } from '@apollo/client/react'
import { useRef, useState } from 'react'
import { useMe } from '../../auth/auth-context.ts'
import type { CloneCommandDataFragment } from '../../gql/graphql.ts'
import { graphql } from '../../gql/index.ts'

const CloneCommandData = graphql(`
  fragment CloneCommandData on Deployment {
    status
    cloneUrl
    repositoryUrl
  }
`)

/** What a person wants next: the repository on this machine, or in the browser. */
export function CloneCommand({ deployment }: { deployment: FragmentType<CloneCommandDataFragment> }) {
  const { data, complete } = useFragment({ fragment: CloneCommandData, from: deployment })
  const [copied, setCopied] = useState<'yes' | 'no' | null>(null)
  const command = useRef<HTMLElement>(null)
  const me = useMe()
  if (!complete || data.status !== 'SUCCEEDED') return null
  const { cloneUrl, repositoryUrl } = data

  async function copy() {
    const text = command.current?.textContent ?? ''
    setCopied((await copyText(text, command.current)) ? 'yes' : 'no')
  }

  return (
    <div className="clone">
      {cloneUrl && (
        <div className="clone-line">
          <code className="clone-command" data-testid="clone-command" ref={command}>
            git clone {cloneUrl}
          </code>
          <button type="button" className="button" onClick={copy} onBlur={() => setCopied(null)}>
            {copied === 'yes' ? 'Copied' : 'Copy'}
          </button>
        </div>
      )}
      {/* Git knows nothing of the session of a browser. */}
      {cloneUrl?.startsWith(window.location.origin) && me?.expiresAt && (
        <p className="hint">Git asks for a name and a password: any name, and a token as the password.</p>
      )}
      <p className="visually-hidden" role="status">
        {copied === 'yes' && 'Copied to the clipboard'}
      </p>
      {copied === 'no' && <p className="hint">Copying was not allowed; the line is selected for you.</p>}
      {repositoryUrl && (
        <p>
          <a className="repository-link" href={repositoryUrl} target="_blank" rel="noreferrer">
            Open the repository
          </a>
        </p>
      )}
    </div>
  )
}

/** The clipboard is there on https and on loopback only; elsewhere the line is selected, to be copied by hand. */
async function copyText(text: string, element: HTMLElement | null): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    if (element) window.getSelection()?.selectAllChildren(element)
    return false
  }
}
