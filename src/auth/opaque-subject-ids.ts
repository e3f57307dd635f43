import { createHmac } from 'node:crypto'
import { Injectable, type OnModuleInit } from '@nestjs/common'
import { Database } from '../database/database.ts'

/**
 * Subject ids as clients see them. Names are not unique, and a subject's own id can contain an account number
 * or an email address; an opaque id distinguishes subjects without disclosing it. Keyed with the
 * installation's secret, so that it cannot be derived from a known account. The same on every node, and for
 * every viewer.
 */
@Injectable()
export class OpaqueSubjectIds implements OnModuleInit {
  private key = ''

  constructor(private readonly database: Database) {}

  async onModuleInit(): Promise<void> {
    const [installation] = await this.database.query<{ id: string }>('select id from installation', [])
    if (!installation) {
      throw new Error('The table "installation" is empty; it must have one row. Restore it from a backup.')
    }
    this.key = installation.id
  }

  /** 128 bits, as 22 characters. */
  of(subjectId: string): string {
    return createHmac('sha256', this.key)
      .update(`subject ${subjectId}`)
      .digest()
      .subarray(0, 16)
      .toString('base64url')
  }
}
