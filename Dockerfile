# Not run where it was written, for want of Docker. For several nodes with their Postgres: compose.yaml.
FROM node:24-bookworm-slim AS build
WORKDIR /shipcast
COPY package.json package-lock.json ./
# Without the workspace `test`.
RUN npm ci --no-workspaces --ignore-scripts --no-audit --no-fund
COPY . .
RUN npm run build && npm prune --no-workspaces --ignore-scripts --omit=dev --omit=optional

FROM node:24-bookworm-slim
# git serves clones of the local forge.
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
WORKDIR /shipcast
COPY --from=build /shipcast/package.json ./
COPY --from=build /shipcast/node_modules node_modules
COPY --from=build /shipcast/dist dist
COPY --from=build /shipcast/scripts/check-build.mjs scripts/
COPY --from=build /shipcast/templates templates
RUN mkdir /data && chown node:node /data
USER node
ENV NODE_ENV=production HOST=0.0.0.0 PORT=3000 DATA_DIR=/data
EXPOSE 3000
# The embedded Postgres is left out of the image: DATABASE_URL has to be set; and ACCESS, or a way to sign in.
# Alive, not ready: some orchestrators end what is unhealthy, which mends no database. For balancers: /health/ready.
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s \
  CMD ["node", "-e", "fetch('http://127.0.0.1:3000/health/live').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
# As `npm start`: V8's young generation stays small, and a viewer takes half the memory.
CMD ["node", "--max-semi-space-size=8", "dist/main.js"]
