import { Global, Module } from '@nestjs/common'
import { AuthResolver } from './auth.resolver.ts'
import { Authenticator } from './credentials/authenticator.ts'
import { HttpAccess } from './http-access.ts'
import { RateLimiter } from './rate-limiter.ts'
import { SignInController } from './sign-in/sign-in.controller.ts'
import { SignInService } from './sign-in/sign-in.service.ts'

/** Who somebody is, what they may do, and what they did. */
@Global()
@Module({
  controllers: [SignInController],
  providers: [AuthResolver, Authenticator, HttpAccess, RateLimiter, SignInService],
  exports: [Authenticator, HttpAccess, RateLimiter],
})
export class AuthModule {}
