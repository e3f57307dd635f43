import pg from 'pg'

/* The other end of a bare NOTIFY round trip, in a process of its own: whatever it hears on "ping" it says on "pong". */
const client = new pg.Client(JSON.parse(process.argv[2]))
await client.connect()
client.on('notification', ({ payload }) => void client.query('select pg_notify($1, $2)', ['pong', payload]))
await client.query('listen ping')
console.log('listening')
process.stdin.on('end', () => client.end()).resume()
