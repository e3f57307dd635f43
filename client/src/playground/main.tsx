import 'graphiql/setup-workers/vite'
import 'graphiql/style.css'
import './playground.css'
import { createGraphiQLFetcher } from '@graphiql/toolkit'
import { GraphiQL } from 'graphiql'
import { buildSchema } from 'graphql'
import { createClient } from 'graphql-ws'
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import schemaText from '../../../schema.gql?raw'
import { examples } from './examples.ts'

// The schema comes with us: asking the server for it would be the dearest query of all.
const schema = buildSchema(schemaText)

const url = new URL('/graphql', window.location.href)
const socketUrl = new URL(url)
socketUrl.protocol = url.protocol.replace('http', 'ws')

const fetcher = createGraphiQLFetcher({
  url: url.href,
  wsClient: createClient({
    url: socketUrl.href,
    retryAttempts: Number.POSITIVE_INFINITY,
    shouldRetry: () => true,
    keepAlive: 10_000,
  }),
})

const root = document.getElementById('root')
if (!root) throw new Error('graphiql.html has no #root')
createRoot(root).render(
  <StrictMode>
    <GraphiQL
      fetcher={fetcher}
      schema={schema}
      defaultTabs={examples}
      defaultEditorToolsVisibility="variables"
    >
      <GraphiQL.Logo>
        <a className="playground-logo" href="/">
          Shipcast
        </a>
      </GraphiQL.Logo>
    </GraphiQL>
  </StrictMode>,
)
