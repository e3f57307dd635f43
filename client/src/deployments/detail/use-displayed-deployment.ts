import { useReactiveVar } from '@apollo/client/react'
import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from 'react'
import { latestStarted, recordStart } from '../../live/recent-starts.ts'

export interface DisplayedDeployment {
  /** The one that the address names. */
  idInAddress: string | null
  id: string | null
  /** True when it was picked, by a click or by a link: then the page stays with it. */
  isPicked: boolean
  /** Shows a deployment that was started on this page. */
  showOwn(id: string): void
  /** Leaves the one that was picked. */
  follow(): void
  /** While true, nothing else comes on stage: the page waits for its own deployment. */
  hold(isHeld: boolean): void
  onTold(id: string, hasEnded: boolean): void
  /** It cannot be shown; another one may come on stage unless it was asked for by name. */
  onMissing(id: string): void
  onFirstLoad(newestActiveId: string | null): void
}

/**
 * Which deployment is on stage. One that was picked stays. Else it is the one that began last, but not before the one
 * on stage has been told to its end, and not while somebody is at work there. The address names what was picked or
 * started here, so that it survives a reload and can be passed on.
 */
export function useDisplayedDeployment(isStageInUse: () => boolean): DisplayedDeployment {
  const idInAddress = useSyncExternalStore(onAddressChange, readAddress)
  const latest = useReactiveVar(latestStarted)
  const [followed, setFollowed] = useState<string | null>(null)
  const [ended, setEnded] = useState<string | null>(null)
  const [ownId, setOwnId] = useState(() => sessionStorage.getItem(ownKey))
  const [isHeld, hold] = useState(false)
  const passed = useRef<string | null>(null)

  const id = idInAddress ?? followed
  const isPicked = idInAddress !== null && idInAddress !== ownId

  useEffect(() => {
    if (latest === null || latest === id || latest === passed.current || isPicked || isHeld) return
    if (id !== null && (ended !== id || isStageInUse())) return
    passed.current = latest
    setFollowed(latest)
    setAddress(null, 'replace')
  }, [latest, id, ended, isPicked, isHeld, isStageInUse])

  const showOwn = useCallback((own: string) => {
    passed.current = own
    recordStart(own)
    sessionStorage.setItem(ownKey, own)
    setOwnId(own)
    setAddress(own, 'push')
  }, [])

  const follow = useCallback(() => {
    setFollowed(latestStarted())
    setAddress(null, 'push')
  }, [])

  const onTold = useCallback((told: string, hasEnded: boolean) => {
    setEnded((before) => (hasEnded ? told : before === told ? null : before))
  }, [])

  const onMissing = useCallback((missing: string) => {
    setFollowed((before) => (before === missing ? null : before))
  }, [])

  const onFirstLoad = useCallback((newestActiveId: string | null) => {
    setFollowed((before) => before ?? newestActiveId)
  }, [])

  return { idInAddress, id, isPicked, showOwn, follow, hold, onTold, onMissing, onFirstLoad }
}

const ownKey = 'shipcast.own-deployment'

function readAddress(): string | null {
  return decodeURIComponent(window.location.hash.slice(1)) || null
}

function onAddressChange(listener: () => void): () => void {
  window.addEventListener('hashchange', listener)
  window.addEventListener('popstate', listener)
  return () => {
    window.removeEventListener('hashchange', listener)
    window.removeEventListener('popstate', listener)
  }
}

function setAddress(id: string | null, how: 'push' | 'replace') {
  const { pathname, search } = window.location
  const url = id === null ? pathname + search : `#${encodeURIComponent(id)}`
  if (how === 'push') window.history.pushState(null, '', url)
  else window.history.replaceState(null, '', url)
  // The history tells nobody of its own changes.
  window.dispatchEvent(new PopStateEvent('popstate'))
}
