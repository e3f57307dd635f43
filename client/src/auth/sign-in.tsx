import { useEffect, useRef } from 'react'
import { ButtonLink } from '../ui/button.tsx'
import { Card } from '../ui/card.tsx'
import type { AuthState, SignedOutReason } from './auth.ts'
import styles from './sign-in.module.css'

const MESSAGES: Record<SignedOutReason, string> = {
  notSignedIn: 'Sign in to see and start deployments.',
  sessionEnded: 'Your session has ended. Sign in again to continue where you left off.',
  signedOut: 'You have signed out.',
}

/** Replaces the page while the user is not signed in. */
export function SignIn({ providers, reason }: Extract<AuthState, { status: 'signedOut' }>) {
  const title = useRef<HTMLHeadingElement>(null)
  useEffect(() => {
    document.title = 'Sign in · Shipcast'
    title.current?.focus()
  }, [])

  return (
    <main className={styles.page}>
      <Card className={styles.card} aria-labelledby="sign-in-title">
        <img src="/favicon.svg" alt="" width="44" height="44" />
        <h1 id="sign-in-title" className={styles.title} ref={title} tabIndex={-1}>
          Sign in to Shipcast
        </h1>
        {providers.length > 0 ? (
          <>
            <p>{MESSAGES[reason]}</p>
            {providers.map(({ name, url }) => (
              <ButtonLink
                key={url}
                variant="primary"
                size="large"
                href={url}
                // Computed on click: the address may have changed since rendering.
                onClick={(event) => {
                  event.currentTarget.href = `${url}?return_to=${encodeURIComponent(currentPath())}`
                }}
              >
                Sign in with {name}
              </ButtonLink>
            ))}
          </>
        ) : (
          <TokensOnly />
        )}
      </Card>
    </main>
  )
}

function TokensOnly() {
  return (
    <>
      <p>
        This server accepts access tokens only. To let people sign in, an administrator must configure a
        sign-in provider.
      </p>
      <p>
        With a token you can use the <a href="/graphiql">playground</a>: add this to its Headers.
      </p>
      <pre className={styles.header}>
        <code>{'{ "Authorization": "Bearer shipcast_…" }'}</code>
      </pre>
    </>
  )
}

/** Includes the selected deployment, which the hash names. */
function currentPath(): string {
  const { pathname, search, hash } = window.location
  return pathname + search + hash
}
