import { useEffect, useRef } from 'react'
import type { Who } from './auth.ts'

const reasons = {
  unknown: 'Who you are decides what you see and do here.',
  ended: 'Your session has ended. Sign in again, and you are back where you were.',
  asked: 'You have signed out.',
}

/** In place of the page for whoever the server does not know. */
export function SignIn({ ways, why }: Extract<Who, { state: 'signedOut' }>) {
  const title = useRef<HTMLHeadingElement>(null)
  useEffect(() => {
    document.title = 'Sign in · Shipcast'
    title.current?.focus()
  }, [])

  return (
    <main className="sign-in">
      <section className="card sign-in-card" aria-labelledby="sign-in-title">
        <img src="/favicon.svg" alt="" width="44" height="44" />
        <h1 id="sign-in-title" ref={title} tabIndex={-1}>
          Sign in to Shipcast
        </h1>
        {ways.length > 0 ? (
          <>
            <p>{reasons[why]}</p>
            {ways.map(({ name, url }) => (
              <a
                key={url}
                className="button button-main button-wide"
                href={url}
                // The address may have changed since this was shown.
                onClick={(event) => {
                  event.currentTarget.href = `${url}?return_to=${encodeURIComponent(here())}`
                }}
              >
                Sign in with {name}
              </a>
            ))}
          </>
        ) : (
          <TokensOnly />
        )}
      </section>
    </main>
  )
}

function TokensOnly() {
  return (
    <>
      <p>
        This server lets in programs with a token, and has no way for people to sign in. Whoever runs it can
        add one.
      </p>
      <p>
        With a token, the <a href="/graphiql">playground</a> works: put this into its Headers.
      </p>
      <pre className="sign-in-header">
        <code>{'{ "Authorization": "Bearer shipcast_…" }'}</code>
      </pre>
    </>
  )
}

/** Where the person is, with the deployment that they look at. */
function here(): string {
  const { pathname, search, hash } = window.location
  return pathname + search + hash
}
