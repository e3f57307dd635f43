import {
  applyDecorators,
  type CanActivate,
  type ExecutionContext,
  Injectable,
  SetMetadata,
  UseGuards,
} from '@nestjs/common'
import { Reflector } from '@nestjs/core'
import type { Role } from '../config/grants.ts'
import { ForbiddenError } from '../errors.ts'
import { HttpAuthenticator } from './http-authenticator.ts'
import { principalFrom } from './principal.ts'
import { hasRole } from './rights.ts'

/**
 * Authenticates the requests of a controller. Resolvers do not need it: `/graphql` is authenticated before
 * its body is read, and a socket when it sends `connection_init`.
 */
@Injectable()
export class AuthGuard implements CanActivate {
  constructor(private readonly authenticator: HttpAuthenticator) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    await this.authenticator.authenticate(context.switchToHttp().getRequest())
    return true
  }
}

/** Admits subjects that see every organization. Runs after the AuthGuard. */
@Injectable()
export class AllOrganizationsGuard implements CanActivate {
  canActivate(context: ExecutionContext): boolean {
    if (principalFrom(context).subject.rights.sees === 'all') return true
    throw new ForbiddenError('This requires access to every organization. Ask an admin for it.')
  }
}

const REQUIRED_ROLE = 'required role'

@Injectable()
class RolesGuard implements CanActivate {
  constructor(private readonly reflector: Reflector) {}

  canActivate(context: ExecutionContext): boolean {
    const role = this.reflector.get<Role>(REQUIRED_ROLE, context.getHandler())
    if (hasRole(principalFrom(context).subject.rights, role)) return true
    throw new ForbiddenError(`This requires the role "${role}". Ask an admin, or use a token with that role.`)
  }
}

/** Admits subjects with this role, or a higher one. */
export const RequireRole = (role: Role) =>
  applyDecorators(SetMetadata(REQUIRED_ROLE, role), UseGuards(RolesGuard))
