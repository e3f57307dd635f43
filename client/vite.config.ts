import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'
import react from '@vitejs/plugin-react'
import { defineConfig, type Plugin } from 'vite'

/** `npm run dev` starts the server with the same HOST and PORT. */
const { HOST = '', PORT = '' } = process.env
const host = HOST === '' || HOST === '0.0.0.0' || HOST === '::' ? '127.0.0.1' : HOST
const server = `http://${host.includes(':') ? `[${host}]` : host}:${PORT || 3000}`

export default defineConfig({
  root: import.meta.dirname,
  plugins: [typedOperations(), react(), scriptSizeLimit('index.html', 150_000)],
  build: {
    outDir: '../dist/client',
    emptyOutDir: true,
    target: 'es2023',
    // Never inline assets: the Content-Security-Policy allows neither inline scripts nor data: fonts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // Monaco is large, but only the playground loads it.
    chunkSizeWarningLimit: 6_000,
    rolldownOptions: {
      input: ['index.html', 'graphiql.html'].map((file) => `${import.meta.dirname}/${file}`),
      // GraphiQL's "use no memo" directives address a compiler that has already run.
      onLog: (level, log, print) => log.code === 'MODULE_LEVEL_DIRECTIVE' || print(level, log),
    },
  },
  // Pre-bundling would break the URLs of the worker files.
  optimizeDeps: { exclude: ['graphiql/setup-workers/vite', '@graphiql/react/setup-workers/vite'] },
  server: {
    proxy: {
      // Keeps the Host header: the server compares it with the Origin.
      '/graphql': { target: server, ws: true },
      '/git': { target: server },
      '/auth': { target: server },
      '/health': { target: server },
    },
  },
})

/** Keeps src/gql up to date in development; a build generates it beforehand. */
function typedOperations(): Plugin {
  const generate = () => promisify(execFile)(process.execPath, [`${import.meta.dirname}/codegen.ts`])
  let last: Promise<unknown> = Promise.resolve()
  return {
    name: 'typed-operations',
    apply: 'serve',
    async buildStart() {
      await generate()
    },
    async watchChange(path) {
      if (!/\.tsx?$/.test(path) || path.includes('/gql/')) return
      last = last.then(generate).catch((error: { stderr: string }) => this.warn(error.stderr))
      await last
    },
  }
}

/** Prints how much JavaScript the page loads initially, and fails the build above the limit. */
function scriptSizeLimit(page: string, limitBytes: number): Plugin {
  return {
    name: 'script-size-limit',
    generateBundle(_options, bundle) {
      const chunks = Object.values(bundle).filter((file) => file.type === 'chunk')
      const loaded = new Set<string>()
      const load = (fileName: string) => {
        if (loaded.has(fileName)) return
        loaded.add(fileName)
        chunks.find((chunk) => chunk.fileName === fileName)?.imports.forEach(load)
      }
      for (const chunk of chunks)
        if (chunk.isEntry && chunk.facadeModuleId?.endsWith(`/${page}`)) load(chunk.fileName)

      let bytes = 0
      for (const chunk of chunks)
        if (loaded.has(chunk.fileName)) bytes += gzipSync(chunk.code, { level: 9 }).length
      const summary = `${page}: ${(bytes / 1000).toFixed(1)} kB of JavaScript (gzip), limit ${limitBytes / 1000} kB`
      if (bytes === 0 || bytes > limitBytes) this.error(summary)
      this.info(summary)
    },
  }
}
