import { on } from 'node:events'
import { MessageChannel, type MessagePort } from 'node:worker_threads'
import { Piscina } from 'piscina'
import { RateLimitedError } from '../../errors.ts'
import { FairSlots } from '../../runtime/fair-slots.ts'
import { type GitObject, type PackPart, PIECE_BYTES, piecesOf } from './pack.ts'

const MAX_THREADS = 2
/** Each holds the contents of its request. */
const MAX_WAITING = 16
/** About as long as packing the largest contents takes. */
const RETRY_AFTER_MS = 5_000
// A deflated object is garbage as soon as it is in its part. Without limits V8 lets it lie: at 10,000 files a third more
// memory. A thread holds a part, a block and 150 bytes an object, far below these.
const RESOURCE_LIMITS = { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 128 }

export interface PackingTask {
  port: MessagePort
  objectCount: number
}

/** A thread hands over a part of the pack, to get its bytes back; or asks for a block, and gives the last one's back. */
export type PackingRequest = { part: PackPart } | { used: ArrayBuffer | undefined }

/** Objects, and their bodies one after the other. Of a body larger than a block the rest follows, in blocks without objects. */
export interface ObjectBlock {
  objects: (Pick<GitObject, 'type' | 'id'> & { size: number })[]
  bytes: Uint8Array<ArrayBuffer>
}

// Piscina's own queue has no bound for tasks with a signal, and forgets those that wait when an abort ends the last
// thread. So it is never given more tasks than it has threads; the rest wait here, and have copied nothing yet.
const slots = new FairSlots(
  MAX_THREADS,
  MAX_WAITING,
  () => new RateLimitedError('Too many large deployments are being accepted at the moment.', RETRY_AFTER_MS),
)

interface Pool {
  threads: Piscina<PackingTask, void>
  /** Rejects when a thread cannot even start. */
  startFailure: Promise<never>
}

let pool: Pool | undefined

/**
 * Waits for its turn to use a packing thread. Resolves to the function that ends the turn, to be called once.
 * `parties` take turns, see `FairSlots`.
 * @throws RateLimited
 */
export function reservePackingThread(parties: readonly string[], signal: AbortSignal): Promise<() => void> {
  return slots.acquire(parties, signal)
}

/** Packs in a thread of its own, no faster than it is read. For who has a turn, once at a time. */
export async function* packInThread(
  objects: readonly GitObject[],
  signal: AbortSignal,
): AsyncGenerator<PackPart> {
  const { port1: here, port2: there } = new MessageChannel()
  const ending = new AbortController()
  pool ??= openPool()
  const packed = Promise.race([
    pool.threads.run(
      { port: there, objectCount: objects.length },
      { transferList: [there], signal: AbortSignal.any([signal, ending.signal]) },
    ),
    pool.startFailure,
  ]).finally(() => here.close())
  packed.catch(() => {}) // awaited below, unless who reads has stopped
  try {
    const blocks = blocksOf(objects)
    for await (const [request] of on(here, 'message', { close: ['close'] }) as AsyncIterable<
      [PackingRequest]
    >) {
      if ('part' in request) {
        yield request.part
        here.postMessage(request.part.bytes, [request.part.bytes.buffer])
      } else {
        const block = nextBlock(blocks, request.used)
        here.postMessage(block, block ? [block.bytes.buffer] : [])
      }
    }
    await packed
  } catch (error) {
    signal.throwIfAborted()
    throw error
  } finally {
    ending.abort()
  }
}

/** Ends the packing threads; what they were packing is rejected. A later call starts new ones. */
export async function closePackingThreads(): Promise<void> {
  const closing = pool
  pool = undefined
  await closing?.threads.destroy()
}

/** Bodies of at most PIECE_BYTES together; a larger one has blocks of its own. */
function* blocksOf(objects: readonly GitObject[]): Generator<{ group: GitObject[]; pieces: Uint8Array[] }> {
  let group: GitObject[] = []
  let bytes = 0
  for (const object of objects) {
    if (bytes + object.body.length > PIECE_BYTES) {
      if (group.length > 0) yield { group, pieces: group.map(({ body }) => body) }
      group = []
      bytes = 0
    }
    if (object.body.length > PIECE_BYTES) {
      let owner = [object]
      for (const piece of piecesOf(object.body)) {
        yield { group: owner, pieces: [piece] }
        owner = []
      }
    } else {
      group.push(object)
      bytes += object.body.length
    }
  }
  if (group.length > 0) yield { group, pieces: group.map(({ body }) => body) }
}

/** Copies, because the files' own buffers are the caller's and stay usable. */
function nextBlock(blocks: ReturnType<typeof blocksOf>, used: ArrayBuffer | undefined): ObjectBlock | null {
  const { value, done } = blocks.next()
  if (done) return null
  const buffer = new Uint8Array(used ?? new ArrayBuffer(PIECE_BYTES))
  let end = 0
  for (const piece of value.pieces) {
    buffer.set(piece, end)
    end += piece.length
  }
  const objects = value.group.map(({ type, id, body }) => ({ type, id, size: body.length }))
  return { objects, bytes: buffer.subarray(0, end) }
}

function openPool(): Pool {
  // As this file is: TypeScript from the sources, which Node runs as it is, or JavaScript when built.
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
  const threads = new Piscina<PackingTask, void>({
    filename: new URL(`./pack-worker.${extension}`, import.meta.url).href,
    minThreads: 0, // and none longer than it packs: so its memory returns
    maxThreads: MAX_THREADS,
    recordTiming: false,
    resourceLimits: RESOURCE_LIMITS,
  })
  const broken = Promise.withResolvers<never>()
  broken.promise.catch(() => {}) // each packInThread that races against it hears of it
  threads.once('error', (error) => {
    broken.reject(error)
    void closePackingThreads()
  })
  return { threads, startFailure: broken.promise }
}
