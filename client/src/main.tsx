import { ApolloProvider } from '@apollo/client/react'
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { createAccess } from './access/access.ts'
import { AccessContext } from './access/access-context.ts'
import { App } from './app.tsx'
import { createApolloClient } from './live/apollo-client.ts'
import { createLiveSocket } from './live/live-socket.ts'
import { LiveSocketContext } from './live/live-socket-context.ts'
import './page.css'

const socket = createLiveSocket(new URL('/graphql', window.location.href.replace(/^http/, 'ws')).href)
const client = createApolloClient(socket, (ways) => access.refused(ways))
const access = createAccess(client, socket)

const root = document.getElementById('root')
if (!root) throw new Error('index.html has no #root')
createRoot(root).render(
  <StrictMode>
    <LiveSocketContext value={socket}>
      <ApolloProvider client={client}>
        <AccessContext value={access}>
          <App />
        </AccessContext>
      </ApolloProvider>
    </LiveSocketContext>
  </StrictMode>,
)
