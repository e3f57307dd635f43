import 'graphiql/setup-workers/vite'
import 'graphiql/style.css'
import './playground.css'
import { GraphiQL } from 'graphiql'
import { buildSchema } from 'graphql'
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import schemaText from '../../../schema.gql?raw'
import { EXAMPLES } from './examples.ts'
import { createFetcher } from './fetcher.ts'
import { storage } from './storage.ts'

// Bundled, because an introspection query would be the most expensive one.
const schema = buildSchema(schemaText)
const fetcher = createFetcher(new URL('/graphql', window.location.href))

const root = document.getElementById('root')
if (!root) throw new Error('graphiql.html has no #root')
createRoot(root).render(
  <StrictMode>
    <GraphiQL
      fetcher={fetcher}
      schema={schema}
      storage={storage}
      defaultTabs={EXAMPLES}
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
