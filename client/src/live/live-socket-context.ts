import { createContext, useContext, useSyncExternalStore } from 'react'
import type { Connection, LiveSocket } from './live-socket.ts'

export const LiveSocketContext = createContext<LiveSocket | null>(null)

export function useLiveSocket(): LiveSocket {
  const socket = useContext(LiveSocketContext)
  if (!socket) throw new Error('useLiveSocket requires a LiveSocketContext')
  return socket
}

export function useConnection(): Connection {
  const socket = useLiveSocket()
  return useSyncExternalStore(socket.onConnectionChange, socket.connection)
}
