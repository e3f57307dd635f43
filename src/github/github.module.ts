import { join } from 'node:path'
import { Global, Module, type OnApplicationShutdown } from '@nestjs/common'
import { Config } from '../config.ts'
import { GitHubClient } from './github-client.ts'
import { LocalForge } from './local-forge.ts'
import { closePackingThreads } from './packing-threads.ts'

@Global()
@Module({
  providers: [
    {
      provide: GitHubClient,
      inject: [Config],
      useFactory: (config: Config): GitHubClient =>
        new LocalForge({ folder: forgeFolder(config), cloneUrlBase: `${config.publicUrl}/git` }),
    },
  ],
  exports: [GitHubClient],
})
export class GitHubModule implements OnApplicationShutdown {
  async onApplicationShutdown(): Promise<void> {
    await closePackingThreads()
  }
}

export function forgeFolder(config: Config): string {
  return join(config.dataDir, 'forge')
}
