const NEEDED_MAJOR = 24

if (Number(process.versions.node.split('.')[0]) < NEEDED_MAJOR) {
  console.error(
    `Shipcast runs on Node ${NEEDED_MAJOR} or newer, and this is ${process.versions.node}. Use "npm start" and "npm run token", which run the Node that Shipcast brings along, or node_modules/.bin/node.`,
  )
  process.exit(1)
}

export {}
