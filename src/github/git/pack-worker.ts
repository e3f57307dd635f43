import { once } from 'node:events'
import type { MessagePort } from 'node:worker_threads'
import { type ObjectInPieces, type PackPart, packObjects } from './pack.ts'
import type { ObjectBlock, PackingRequest, PackingTask } from './packing-threads.ts'

/**
 * What a packing thread runs: asks for a block of objects, or hands over a part of the pack, and waits for the answer.
 * So it holds one of each, however large the contents are.
 *
 * Node loads this file as it is, by stripping its types: so neither here nor in what is imported here may there be
 * anything that strips to something else (decorators, enums, parameter properties).
 */
export default async function pack({ port, objectCount }: PackingTask): Promise<void> {
  const ask = askSequentially(port)
  for await (const part of packObjects(objectCount, objectsFrom(ask))) {
    part.bytes = (await ask({ part }, part.bytes.buffer)) as PackPart['bytes']
  }
}

type Ask = (request: PackingRequest, moved: ArrayBuffer | undefined) => Promise<unknown>

/** A stream that deflates asks for more while what it has written is handed over: so one after the other. */
function askSequentially(port: MessagePort): Ask {
  let last: Promise<unknown> = Promise.resolve()
  return (request, moved) => {
    last = last.then(async () => {
      port.postMessage(request, moved ? [moved] : [])
      const [answer] = await once(port, 'message')
      return answer
    })
    return last
  }
}

async function* objectsFrom(ask: Ask): AsyncGenerator<ObjectInPieces> {
  let block: ObjectBlock | null = null
  async function next(): Promise<ObjectBlock | null> {
    const used: ArrayBuffer | undefined = block?.bytes.buffer
    block = (await ask({ used }, used)) as ObjectBlock | null
    return block
  }
  for (let current = await next(); current; current = await next()) {
    let end = 0
    for (const { type, id, size } of current.objects) {
      const start = end
      end += size
      yield { type, id, size, pieces: piecesFrom(current.bytes.subarray(start, end), size, next) }
    }
  }
}

/** What is not in this block is alone in those that follow. */
async function* piecesFrom(
  first: Uint8Array,
  size: number,
  next: () => Promise<ObjectBlock | null>,
): AsyncGenerator<Uint8Array> {
  yield first
  for (let left = size - first.length; left > 0; ) {
    const block = await next()
    if (!block) throw new Error(`The last ${left} bytes of an object are missing.`)
    left -= block.bytes.length
    yield block.bytes
  }
}
