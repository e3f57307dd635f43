import { useCallback, useEffect, useRef } from 'react'
import { useAuthState } from './auth/auth-context.ts'
import { CurrentUser } from './auth/current-user.tsx'
import { SignIn } from './auth/sign-in.tsx'
import { NewDeployment } from './deploy/deploy-form.tsx'
import { DeploymentDetail } from './deployments/detail/deployment-detail.tsx'
import { useDisplayedDeployment } from './deployments/detail/use-displayed-deployment.ts'
import { DeploymentList } from './deployments/list/deployment-list.tsx'
import { ConnectionBanner, ConnectionPill } from './live/connection-status.tsx'
import { LiveDeployments } from './live/live-deployments.tsx'
import { useConnection } from './live/live-socket-context.ts'

export function App() {
  const who = useAuthState()
  if (who.state === 'signedOut') return <SignIn {...who} />
  return (
    <LiveDeployments>
      <header className="top">
        <a className="brand" href="/">
          <img src="/favicon.svg" alt="" width="32" height="32" />
          <h1>Shipcast</h1>
        </a>
        <ConnectionPill />
        <nav className="top-nav">
          <a href="/graphiql">Playground</a>
        </nav>
        <CurrentUser />
      </header>
      <ConnectionBanner />
      {/* What may be done is known before anything is offered. */}
      {who.state !== 'asking' && <Page />}
    </LiveDeployments>
  )
}

function Page() {
  const { state } = useConnection()
  const stage = useRef<HTMLElement>(null)
  const isStageInUse = useCallback(() => stage.current?.contains(document.activeElement) ?? false, [])
  const shown = useDisplayedDeployment(isStageInUse)

  // On a narrow screen the stage may be far from what was pressed.
  const shownByHand = shown.idInAddress
  useEffect(() => {
    if (shownByHand !== null) stage.current?.scrollIntoView({ block: 'nearest' })
  }, [shownByHand])

  return (
    <main className="page">
      <NewDeployment onDeploying={shown.hold} onDeployed={shown.showOwn} />
      <div className="watch" data-live={state !== 'reconnecting'}>
        <DeploymentDetail
          ref={stage}
          id={shown.id}
          onTold={shown.onTold}
          onMissing={shown.onMissing}
          onLeave={shown.isPicked ? shown.follow : null}
        />
        <DeploymentList selectedId={shown.id} onFirstLoad={shown.onFirstLoad} />
      </div>
    </main>
  )
}
