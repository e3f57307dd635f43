const PREFIX = 'graphiql:'
const HISTORY_KEYS = [`${PREFIX}queries`, `${PREFIX}favorites`]

/**
 * The browser's local storage, without the headers in GraphiQL's history, which GraphiQL stores even with header
 * persistence off: the next user of this browser must not find a token.
 */
export const storage = {
  get length() {
    return localStorage.length
  },
  getItem: (key: string) => localStorage.getItem(key),
  removeItem: (key: string) => localStorage.removeItem(key),
  setItem: (key: string, value: string) =>
    localStorage.setItem(key, HISTORY_KEYS.includes(key) ? withoutHeaders(value) : value),
  clear() {
    for (const key of Object.keys(localStorage)) {
      if (key.startsWith(PREFIX)) localStorage.removeItem(key)
    }
  },
}

function withoutHeaders(history: string): string {
  return JSON.stringify(JSON.parse(history, (key, value) => (key === 'headers' ? undefined : value)))
}
