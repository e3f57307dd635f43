import { Piscina } from 'piscina'
import { BoundedSlots } from './bounded-slots.ts'
import { GitHubError } from './github-error.ts'
import type { PackedContents } from './pack-contents.ts'
import type { PackingTask } from './pack-worker.ts'
import type { Slab } from './prepare-contents.ts'
import type { CommitPlan } from './prepared-contents.ts'

const MAX_THREADS = 2
const MAX_WAITING = 16
const IDLE_MS = 10_000

// Piscina's own queue has no bound for tasks with a signal, and forgets those that wait when an abort ends the last
// thread. So it is never given more tasks than it has threads; the rest wait here, and have copied nothing yet.
const slots = new BoundedSlots(MAX_THREADS, MAX_WAITING)

interface Pool {
  threads: Piscina<PackingTask, PackedContents>
  /** Rejects when a thread cannot even start. */
  broken: Promise<never>
}

let pool: Pool | undefined

/** Packs in a thread of its own. `slabs` is called when there is one. */
export async function packInThread(
  plan: CommitPlan,
  slabs: () => Promise<Slab[]>,
  signal: AbortSignal,
): Promise<PackedContents> {
  const leave = await slots.enter(signal)
  if (leave === null) {
    throw new GitHubError(
      'TRANSIENT',
      'Too many large contents are being packed; this one has to wait its turn.',
    )
  }
  try {
    const task: PackingTask = { slabs: await slabs(), plan }
    const transferList = task.slabs.map((slab) => slab.bytes.buffer)
    pool ??= openPool()
    return await Promise.race([pool.threads.run(task, { transferList, signal }), pool.broken])
  } catch (error) {
    signal.throwIfAborted()
    throw error
  } finally {
    leave()
  }
}

/** Ends the packing threads; what they were packing is rejected. A later call starts new ones. */
export async function closePackingThreads(): Promise<void> {
  const closing = pool
  pool = undefined
  await closing?.threads.destroy()
}

function openPool(): Pool {
  // As this file is: TypeScript from the sources, which Node runs as it is, or JavaScript when built.
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
  const threads = new Piscina<PackingTask, PackedContents>({
    filename: new URL(`./pack-worker.${extension}`, import.meta.url).href,
    minThreads: 0,
    maxThreads: MAX_THREADS,
    idleTimeout: IDLE_MS,
    recordTiming: false,
  })
  const broken = Promise.withResolvers<never>()
  broken.promise.catch(() => {}) // each packInThread that races against it hears of it
  threads.once('error', (error) => {
    broken.reject(error)
    void closePackingThreads()
  })
  return { threads, broken: broken.promise }
}
