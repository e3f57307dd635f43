const MIN_NODE_MAJOR = 24

if (Number(process.versions.node.split('.')[0]) < MIN_NODE_MAJOR) {
  console.error(
    `Shipcast requires Node ${MIN_NODE_MAJOR} or newer; this is ${process.versions.node}. Use "npm start" and "npm run token", which run the bundled Node, or node_modules/.bin/node.`,
  )
  process.exit(1)
}

export {}
