import './global.css'
import { ApolloProvider } from '@apollo/client/react'
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { App } from './app.tsx'
import { createAuth } from './auth/auth.ts'
import { AuthContext } from './auth/auth-context.ts'
import { createApolloClient } from './live/apollo-client.ts'
import { createLiveSocket } from './live/live-socket.ts'
import { LiveSocketContext } from './live/live-socket-context.ts'

const socket = createLiveSocket(new URL('/graphql', window.location.href.replace(/^http/, 'ws')).href)
const client = createApolloClient(socket, (providers) => auth.onUnauthenticated(providers))
const auth = createAuth(client, socket)

const root = document.getElementById('root')
if (!root) throw new Error('index.html has no #root')
createRoot(root).render(
  <StrictMode>
    <LiveSocketContext value={socket}>
      <ApolloProvider client={client}>
        <AuthContext value={auth}>
          <App />
        </AuthContext>
      </ApolloProvider>
    </LiveSocketContext>
  </StrictMode>,
)
