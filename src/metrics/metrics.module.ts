import { Global, Module, type OnModuleInit } from '@nestjs/common'
import { collectDefaultMetrics } from 'prom-client'
import { Metrics } from './metrics.ts'

@Global()
@Module({ providers: [Metrics], exports: [Metrics] })
export class MetricsModule implements OnModuleInit {
  constructor(private readonly metrics: Metrics) {}

  /** Metrics of Node itself: event loop lag, memory, garbage collection. */
  onModuleInit(): void {
    collectDefaultMetrics({ register: this.metrics.registry })
  }
}
