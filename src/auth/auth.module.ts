import { Module } from '@nestjs/common'
import { PubSubModule } from '../pubsub/pubsub.module.ts'
import { AuthResolver } from './auth.resolver.ts'
import { ClientAddress } from './client-address.ts'
import { Authenticator } from './credentials/authenticator.ts'
import { CredentialStore } from './credentials/credential-store.ts'
import { SessionMonitor } from './credentials/session-monitor.ts'
import { HttpAuthenticator } from './http-authenticator.ts'
import { OpaqueSubjectIds } from './opaque-subject-ids.ts'
import { RateLimiter } from './rate-limiter.ts'
import { SignInController } from './sign-in/sign-in.controller.ts'
import { SignInService } from './sign-in/sign-in.service.ts'
import { SignInStore } from './sign-in/sign-in-store.ts'

/** Authentication, roles, rate limits and the audit log. */
@Module({
  imports: [PubSubModule],
  controllers: [SignInController],
  providers: [
    AuthResolver,
    Authenticator,
    ClientAddress,
    CredentialStore,
    HttpAuthenticator,
    OpaqueSubjectIds,
    RateLimiter,
    SessionMonitor,
    SignInService,
    SignInStore,
  ],
  exports: [Authenticator, ClientAddress, HttpAuthenticator, OpaqueSubjectIds, RateLimiter, SessionMonitor],
})
export class AuthModule {}
