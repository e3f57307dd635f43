import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'

/** The authority that issued the certificate, unknown to every machine: a file for NODE_EXTRA_CA_CERTS. */
export const AUTHORITY_FILE = fileURLToPath(new URL('authority.pem', import.meta.url))

/** The certificate of a server at 127.0.0.1. */
export async function readCertificate(): Promise<{ cert: Buffer; key: Buffer }> {
  const read = (name: string) => readFile(new URL(name, import.meta.url))
  return { cert: await read('server.pem'), key: await read('server.key') }
}
