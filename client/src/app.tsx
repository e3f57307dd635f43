import { useCallback, useEffect, useRef } from 'react'
import { DeployForm } from './deploy/deploy-form.tsx'
import { DeploymentList } from './deployments/deployment-list.tsx'
import { Stage } from './deployments/stage.tsx'
import { ConnectionBanner, ConnectionPill } from './live/connection-pill.tsx'
import { LiveDeployments } from './live/live-deployments.tsx'
import { useConnection } from './live/live-socket-context.ts'
import { useShownDeployment } from './use-shown-deployment.ts'

export function App() {
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
      </header>
      <ConnectionBanner />
      <main className="page">
        <DeployForm onDeploying={shown.hold} onDeployed={shown.showOwn} />
        <div className="watch" data-live={state !== 'reconnecting'}>
          <Stage
            ref={stage}
            id={shown.id}
            onTold={shown.onTold}
            onLeave={shown.isPicked ? shown.follow : null}
          />
          <DeploymentList selectedId={shown.id} onFirstLoad={shown.onFirstLoad} />
        </div>
      </main>
    </LiveDeployments>
  )
}
