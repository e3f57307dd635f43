import { createInterface } from 'node:readline'
import { Database } from '../../src/database/database.ts'

/**
 * A process of its own for tests that kill it: `node database-program.ts <dataDir> [uid]`. Each line on stdin
 * is a statement (as JSON text), each line on stdout its rows or its error. Closes the database when stdin
 * ends.
 */
const [dataDir = '', uid] = process.argv.slice(2)
if (uid !== undefined) becomeUser(Number(uid))

const database = await openOrReport()
if (database) {
  sendAnswer({ rows: [] })
  for await (const line of createInterface({ input: process.stdin })) {
    const statement: string = JSON.parse(line)
    await database.query(statement).then(
      (rows) => sendAnswer({ rows }),
      (error: Error) => sendAnswer({ error: error.message }),
    )
  }
  await database.close()
}

async function openOrReport(): Promise<Database | undefined> {
  try {
    return await Database.open({ dataDir, log: (line) => console.error(line) })
  } catch (error) {
    sendAnswer({ error: error instanceof Error ? error.message : String(error) })
    process.exitCode = 1
  }
}

function becomeUser(uid: number): void {
  process.setgroups?.([])
  process.setgid?.(uid)
  process.setuid?.(uid)
}

function sendAnswer(answer: { rows: unknown[] } | { error: string }): void {
  console.log(JSON.stringify(answer))
}
