import { useCallback, useEffect, useRef } from 'react'
import styles from './app.module.css'
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
  const auth = useAuthState()
  if (auth.status === 'signedOut') return <SignIn {...auth} />
  return (
    <LiveDeployments>
      <header className={styles.header}>
        <a className={styles.brand} href="/">
          <img src="/favicon.svg" alt="" width="32" height="32" />
          <h1>Shipcast</h1>
        </a>
        <ConnectionPill />
        <nav className={styles.nav}>
          <a href="/graphiql">Playground</a>
        </nav>
        <CurrentUser />
      </header>
      <ConnectionBanner />
      {/* Permissions decide what the page offers, so they come first. */}
      {auth.status !== 'loading' && <Page />}
    </LiveDeployments>
  )
}

function Page() {
  const { state } = useConnection()
  const detail = useRef<HTMLElement>(null)
  const isDetailFocused = useCallback(() => detail.current?.contains(document.activeElement) ?? false, [])
  const displayed = useDisplayedDeployment(isDetailFocused)

  // On a narrow screen the detail may be far from the link or button that selected it.
  const { idInAddress } = displayed
  useEffect(() => {
    if (idInAddress !== null) detail.current?.scrollIntoView({ block: 'nearest' })
  }, [idInAddress])

  return (
    <main className={styles.page}>
      <NewDeployment onDeploying={displayed.suspendFollowing} onDeployed={displayed.showOwn} />
      <div className={styles.deployments} data-live={state !== 'reconnecting'}>
        <DeploymentDetail
          ref={detail}
          id={displayed.id}
          onDisplayed={displayed.onDisplayed}
          onMissing={displayed.onMissing}
          onLeave={displayed.isSelected ? displayed.follow : null}
        />
        <DeploymentList selectedId={displayed.id} onFirstLoad={displayed.onFirstLoad} />
      </div>
    </main>
  )
}
