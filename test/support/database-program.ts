import { createInterface } from 'node:readline'
import { Database } from '../../src/database/database.ts'

/**
 * A process that tests can kill: `node database-program.ts <dataDir> [uid]`. Each line on stdin is a
 * statement (a JSON string), each line on stdout its rows or its error. Closes the database when stdin ends.
 */
const [dataDir = '', uid] = process.argv.slice(2)
if (uid !== undefined) becomeUser(Number(uid))

const database = await openOrReport()
if (database) {
  respond({ rows: [] })
  for await (const line of createInterface({ input: process.stdin })) {
    const statement: string = JSON.parse(line)
    await database.query(statement).then(
      (rows) => respond({ rows }),
      (error: Error) => respond({ error: error.message }),
    )
  }
  await database.close()
}

async function openOrReport(): Promise<Database | undefined> {
  try {
    return await Database.open({ dataDir, log: (line) => console.error(line) })
  } catch (error) {
    respond({ error: error instanceof Error ? error.message : String(error) })
    process.exitCode = 1
  }
}

function becomeUser(uid: number): void {
  process.setgroups?.([])
  process.setgid?.(uid)
  process.setuid?.(uid)
}

function respond(response: { rows: unknown[] } | { error: string }): void {
  console.log(JSON.stringify(response))
}
