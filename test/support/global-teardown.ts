import { rm } from 'node:fs/promises'
import { shared } from './test-postgres.ts'

export default async function globalTeardown(): Promise<void> {
  await shared.postgres?.stop()
  if (shared.folder) await rm(shared.folder, { recursive: true, force: true })
}
