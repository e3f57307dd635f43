const prefix = 'graphiql:'
const histories = [`${prefix}queries`, `${prefix}favorites`]

/**
 * The browser's own, but without the headers in GraphiQL's history, which it keeps even where headers are not to be
 * kept: a token must not be found by whoever sits down here next.
 */
export const storage = {
  get length() {
    return localStorage.length
  },
  getItem: (name: string) => localStorage.getItem(name),
  removeItem: (name: string) => localStorage.removeItem(name),
  setItem: (name: string, value: string) =>
    localStorage.setItem(name, histories.includes(name) ? withoutHeaders(value) : value),
  clear() {
    for (const name of Object.keys(localStorage)) {
      if (name.startsWith(prefix)) localStorage.removeItem(name)
    }
  },
}

function withoutHeaders(history: string): string {
  return JSON.stringify(JSON.parse(history, (name, value) => (name === 'headers' ? undefined : value)))
}
