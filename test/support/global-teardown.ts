import { shared } from './test-postgres.ts'

export default async function globalTeardown(): Promise<void> {
  await shared.postgres?.stop()
  await shared.folder?.remove()
}
