import { Global, Module } from '@nestjs/common'
import { AuthResolver } from './auth.resolver.ts'
import { Authenticator } from './credentials/authenticator.ts'
import { HttpAccess } from './http-access.ts'
import { OpaqueSubjectIds } from './opaque-subject-ids.ts'
import { RateLimiter } from './rate-limiter.ts'
import { SignInController } from './sign-in/sign-in.controller.ts'
import { SignInService } from './sign-in/sign-in.service.ts'

/** Who somebody is, what they may do, and what they did. */
@Global()
@Module({
  controllers: [SignInController],
  providers: [AuthResolver, Authenticator, HttpAccess, OpaqueSubjectIds, RateLimiter, SignInService],
  exports: [Authenticator, HttpAccess, OpaqueSubjectIds, RateLimiter],
})
export class AuthModule {}
