/**
 * Path, then method, then what answers: a function of the URL and `{ isStopping }` that gives `{ status, body }`, or a
 * promise of it. The body is sent as JSON.
 */
export const routes = Object.assign(Object.create(null), {
  '/health': {
    GET: (_url, { isStopping }) =>
      isStopping ? { status: 503, body: { status: 'stopping' } } : { status: 200, body: { status: 'ok' } },
  },
  '/hello': {
    GET: (url) => ({ status: 200, body: { message: `Hello, ${url.searchParams.get('name') || 'world'}!` } }),
  },
})
