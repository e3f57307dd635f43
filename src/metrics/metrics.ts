import { Injectable } from '@nestjs/common'
import { Registry } from 'prom-client'

/** The registry behind `/metrics`. */
@Injectable()
export class Metrics {
  readonly registry = new Registry()
}
