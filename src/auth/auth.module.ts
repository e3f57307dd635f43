import { Global, Module } from '@nestjs/common'
import { AuthResolver } from './auth.resolver.ts'
import { Authenticator } from './authenticator.ts'
import { HttpAccess } from './http-access.ts'
import { Limits } from './limits.ts'
import { OpaqueSubjectIds } from './opaque-subject-ids.ts'
import { SignInController } from './sign-in.controller.ts'
import { SignInService } from './sign-in.service.ts'

/** Who somebody is, what they may do, and what they did. */
@Global()
@Module({
  controllers: [SignInController],
  providers: [AuthResolver, Authenticator, HttpAccess, Limits, OpaqueSubjectIds, SignInService],
  exports: [Authenticator, HttpAccess, Limits, OpaqueSubjectIds],
})
export class AuthModule {}
