// For `node --import`: on SIGUSR2, prints the longest stall of the event loop since the
// previous one, in milliseconds.
import { monitorEventLoopDelay } from 'node:perf_hooks'

const delay = monitorEventLoopDelay({ resolution: 1 })
delay.enable()
process.on('SIGUSR2', () => {
  process.stdout.write(`\nloop-lag ${(delay.max / 1e6).toFixed(1)}\n`)
  delay.reset()
})
