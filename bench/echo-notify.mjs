import pg from 'pg'

/* The remote side of a bare NOTIFY round trip: sends each payload received on "ping" to "pong". */
const client = new pg.Client(JSON.parse(process.argv[2]))
await client.connect()
client.on('notification', ({ payload }) => void client.query('select pg_notify($1, $2)', ['pong', payload]))
await client.query('listen ping')
console.log('listening')
process.stdin.on('end', () => client.end()).resume()
