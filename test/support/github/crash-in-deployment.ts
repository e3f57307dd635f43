import fs, { type FileHandle } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'

/*
 * node crash-in-deployment.ts <folder> <n>
 *
 * Deploys to a local forge, and kills itself (SIGKILL) just before the n-th file system call.
 * Prints "done" if it completes.
 */

const [, , folder = '', n = '0'] = process.argv
let callsLeft = Number(n)

function countDown(): void {
  if (--callsLeft === 0) process.kill(process.pid, 'SIGKILL')
}

/**
 * Wraps methods to count their calls. Importers see the wrappers, because bindings of
 * built-in modules are live.
 */
function countCalls(target: object, names: readonly string[]): void {
  for (const name of names) {
    const original: unknown = Reflect.get(target, name)
    if (typeof original !== 'function') throw new Error(`${name} is not a function.`)
    Reflect.set(target, name, function counted(this: unknown, ...args: unknown[]) {
      countDown()
      return Reflect.apply(original, this, args)
    })
  }
}

const probe: FileHandle = await fs.open(process.execPath)
countCalls(Object.getPrototypeOf(probe), ['writeFile', 'sync'])
await probe.close()
callsLeft = Number(n)
countCalls(fs, ['link', 'lstat', 'mkdir', 'open', 'readdir', 'readFile', 'rename', 'rm'])
syncBuiltinESMExports()

const { deploySample } = await import('./deploy-sample.ts')
await deploySample(folder)
console.log('done')
