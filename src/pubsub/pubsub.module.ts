import { Global, Module } from '@nestjs/common'
import { PubSub, PubSubEngine } from 'graphql-subscriptions'

/**
 * The PubSub provider. What is published says "look": it may come late, twice or never, and nobody may need it for
 * more than speed. `publish` reaches the subscribers of this process.
 */
@Global()
@Module({
  providers: [{ provide: PubSubEngine, useFactory: () => new PubSub() }],
  exports: [PubSubEngine],
})
export class PubSubModule {}
