import type { FragmentType } from '@apollo/client'
import { useFragment } from '@apollo/client/react'
import { useRef, useState } from 'react'
import { useMe } from '../../auth/auth-context.ts'
import type { CloneCommandFragment } from '../../gql/graphql.ts'
import { graphql } from '../../gql/index.ts'
import { Button } from '../../ui/button.tsx'
import text from '../../ui/text.module.css'
import styles from './clone-command.module.css'

const CLONE_COMMAND = graphql(`
  fragment CloneCommand on Deployment {
    status
    cloneUrl
    repositoryUrl
  }
`)

/** The command that clones the repository, and a link to it. */
export function CloneCommand({ deployment }: { deployment: FragmentType<CloneCommandFragment> }) {
  const { data, complete } = useFragment({ fragment: CLONE_COMMAND, from: deployment })
  const [copyResult, setCopyResult] = useState<'copied' | 'failed' | null>(null)
  const command = useRef<HTMLElement>(null)
  const me = useMe()
  if (!complete || data.status !== 'SUCCEEDED') return null
  const { cloneUrl, repositoryUrl } = data
  // The browser's session does not apply to git.
  const needsToken = cloneUrl?.startsWith(window.location.origin) && me?.expiresAt

  async function copy() {
    const isCopied = await copyText(command.current?.textContent ?? '', command.current)
    setCopyResult(isCopied ? 'copied' : 'failed')
  }

  return (
    <div className={styles.clone}>
      {cloneUrl && (
        <div className={styles.line}>
          <code className={styles.command} data-testid="clone-command" ref={command}>
            git clone {cloneUrl}
          </code>
          <Button onClick={copy} onBlur={() => setCopyResult(null)}>
            {copyResult === 'copied' ? 'Copied' : 'Copy'}
          </Button>
        </div>
      )}
      {needsToken && (
        <p className={text.hint}>
          When git asks for credentials, enter any username and a token as the password.
        </p>
      )}
      <p className="visually-hidden" role="status">
        {copyResult === 'copied' && 'Copied to the clipboard'}
      </p>
      {copyResult === 'failed' && (
        <p className={text.hint}>
          The browser did not allow copying. The command is selected, so you can copy it yourself.
        </p>
      )}
      {repositoryUrl && (
        <p>
          <a className={styles.link} href={repositoryUrl} target="_blank" rel="noreferrer">
            Open the repository
          </a>
        </p>
      )}
    </div>
  )
}

/** The clipboard requires https or loopback; elsewhere the text is selected, to be copied by hand. */
async function copyText(content: string, element: HTMLElement | null): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(content)
    return true
  } catch {
    if (element) window.getSelection()?.selectAllChildren(element)
    return false
  }
}
