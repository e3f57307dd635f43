import { useReactiveVar } from '@apollo/client/react'
import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from 'react'
import { latestStarted, recordStart } from '../../live/recent-starts.ts'

interface DisplayedDeployment {
  id: string | null
  idInAddress: string | null
  /** Selected by a click or a link: the page stays with it. */
  isSelected: boolean
  /** Displays a deployment that was started on this page. */
  showOwn(id: string): void
  /** Leaves the selected deployment and follows the latest one. */
  follow(): void
  /** While suspended, no other deployment is displayed: the page waits for its own. */
  suspendFollowing(isSuspended: boolean): void
  /** `hasEnded`: the displayed status is final. */
  onDisplayed(id: string, hasEnded: boolean): void
  /** The deployment cannot be displayed; the page follows another one, unless it was selected. */
  onMissing(id: string): void
  onFirstLoad(newestActiveId: string | null): void
}

/**
 * Decides which deployment the page displays. A selected one stays. Otherwise it is the latest one started,
 * but not before the displayed one has ended, nor while the focus is in it. The address names a deployment
 * that was selected or started here, so that it survives a reload and can be shared.
 */
export function useDisplayedDeployment(isDetailFocused: () => boolean): DisplayedDeployment {
  const idInAddress = useSyncExternalStore(subscribeToAddress, readAddress)
  const latestId = useReactiveVar(latestStarted)
  const [followedId, setFollowedId] = useState<string | null>(null)
  const [endedId, setEndedId] = useState<string | null>(null)
  const [ownId, setOwnId] = useState(() => sessionStorage.getItem(OWN_ID_KEY))
  const [isSuspended, suspendFollowing] = useState(false)
  /** The latest one that has already been displayed or passed over. */
  const dismissedId = useRef<string | null>(null)

  const id = idInAddress ?? followedId
  const isSelected = idInAddress !== null && idInAddress !== ownId

  useEffect(() => {
    if (latestId === null || latestId === id || latestId === dismissedId.current) return
    if (isSelected || isSuspended) return
    if (id !== null && (endedId !== id || isDetailFocused())) return
    dismissedId.current = latestId
    setFollowedId(latestId)
    setAddress(null, 'replace')
  }, [latestId, id, endedId, isSelected, isSuspended, isDetailFocused])

  const showOwn = useCallback((startedId: string) => {
    dismissedId.current = startedId
    recordStart(startedId)
    sessionStorage.setItem(OWN_ID_KEY, startedId)
    setOwnId(startedId)
    setAddress(startedId, 'push')
  }, [])

  const follow = useCallback(() => {
    setFollowedId(latestStarted())
    setAddress(null, 'push')
  }, [])

  const onDisplayed = useCallback((displayedId: string, hasEnded: boolean) => {
    setEndedId((before) => (hasEnded ? displayedId : before === displayedId ? null : before))
  }, [])

  const onMissing = useCallback((missingId: string) => {
    setFollowedId((before) => (before === missingId ? null : before))
  }, [])

  const onFirstLoad = useCallback((newestActiveId: string | null) => {
    setFollowedId((before) => before ?? newestActiveId)
  }, [])

  return {
    id,
    idInAddress,
    isSelected,
    showOwn,
    follow,
    suspendFollowing,
    onDisplayed,
    onMissing,
    onFirstLoad,
  }
}

const OWN_ID_KEY = 'shipcast.own-deployment'

function readAddress(): string | null {
  return decodeURIComponent(window.location.hash.slice(1)) || null
}

function subscribeToAddress(listener: () => void): () => void {
  window.addEventListener('hashchange', listener)
  window.addEventListener('popstate', listener)
  return () => {
    window.removeEventListener('hashchange', listener)
    window.removeEventListener('popstate', listener)
  }
}

function setAddress(id: string | null, mode: 'push' | 'replace') {
  const { pathname, search } = window.location
  const url = id === null ? pathname + search : `#${encodeURIComponent(id)}`
  if (mode === 'push') window.history.pushState(null, '', url)
  else window.history.replaceState(null, '', url)
  // pushState and replaceState fire no event themselves.
  window.dispatchEvent(new PopStateEvent('popstate'))
}
