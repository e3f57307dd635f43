import { useCallback, useEffect, useRef } from 'react'
import { useWho } from './access/access-context.ts'
import { SignIn } from './access/sign-in.tsx'
import { WhoAmI } from './access/who-am-i.tsx'
import { NewDeployment } from './deploy/deploy-form.tsx'
import { DeploymentList } from './deployments/deployment-list.tsx'
import { Stage } from './deployments/stage.tsx'
import { ConnectionBanner, ConnectionPill } from './live/connection-pill.tsx'
import { LiveDeployments } from './live/live-deployments.tsx'
import { useConnection } from './live/live-socket-context.ts'
import { useShownDeployment } from './use-shown-deployment.ts'

export function App() {
  const who = useWho()
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
        <WhoAmI />
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
  const shown = useShownDeployment(isStageInUse)

  // On a narrow screen the stage may be far from what was pressed.
  const shownByHand = shown.idInAddress
  useEffect(() => {
    if (shownByHand !== null) stage.current?.scrollIntoView({ block: 'nearest' })
  }, [shownByHand])

  return (
    <main className="page">
      <NewDeployment onDeploying={shown.hold} onDeployed={shown.showOwn} />
      <div className="watch" data-live={state !== 'reconnecting'}>
        <Stage
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
