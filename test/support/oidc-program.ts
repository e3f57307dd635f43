import { Provider } from 'oidc-provider'
import type { OidcProgramSettings, People } from './oidc-server.ts'

/**
 * An OpenID provider in a separate process: `node oidc-program.ts <settings as JSON>`. People sign in by
 * pressing a button. It notifies its parent once it listens; a message from the parent replaces the people.
 */
const { port, client, redirectUrls, ...settings }: OidcProgramSettings = JSON.parse(process.argv[2] ?? '')
let people: People = settings.people
const issuer = `http://localhost:${port}`

const provider: Provider = new Provider(issuer, {
  clients: [{ client_id: client.id, client_secret: client.secret, redirect_uris: [...redirectUrls] }],
  claims: { openid: ['sub'], profile: ['preferred_username', 'groups'], email: ['email'] },
  cookies: { keys: ['not a secret'] },
  features: { devInteractions: { enabled: false } },
  interactions: { url: (_context, { uid }) => `/interaction/${uid}` },
  findAccount: (_context, id) => ({
    accountId: id,
    claims: () => ({ sub: id, preferred_username: id, groups: people[id] ?? [] }),
  }),
  // Grants the scopes without a consent screen.
  async loadExistingGrant({ oidc }) {
    const grant = new provider.Grant({
      clientId: oidc.client?.clientId ?? '',
      accountId: oidc.session?.accountId ?? '',
    })
    grant.addOIDCScope('openid profile email')
    await grant.save()
    return grant
  },
})

provider.use(async (context, next) => {
  if (!context.path.startsWith('/interaction/')) return next()
  const { req, res } = context
  if (context.method === 'GET') {
    const buttons = Object.keys(people).map(
      (id) => `<button formaction="?${encodeURIComponent(id)}">${id}</button>`,
    )
    context.type = 'html'
    context.body = `<!doctype html><title>Test ID</title><form method="post">${buttons.join('')}</form>`
    return
  }
  context.respond = false
  await provider.interactionFinished(req, res, {
    login: { accountId: decodeURIComponent(context.querystring) },
  })
})

process.on('message', (message: People) => {
  people = message
  process.send?.('changed')
})
process.on('disconnect', () => process.exit())
provider.listen(port, '127.0.0.1', () => process.send?.('ready'))
