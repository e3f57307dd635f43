import { createHash } from 'node:crypto'
import {
  Controller,
  Get,
  HttpCode,
  Logger,
  Param,
  Post,
  Query,
  Req,
  Res,
  UseFilters,
  UseGuards,
} from '@nestjs/common'
import { parseCookie } from 'cookie'
import type { CookieOptions, Request, Response } from 'express'
import { RateLimitedError } from '../../errors.ts'
import { AuthGuard } from '../auth.guard.ts'
import { ClientAddress } from '../client-address.ts'
import { SESSION_COOKIE } from '../credentials/authenticator.ts'
import { AuthErrorsFilter } from '../http-authenticator.ts'
import { Auth } from '../principal.ts'
import type { Principal } from '../request-context.ts'
import { SignInService } from './sign-in.service.ts'
import { SignInError } from './sign-in-provider.ts'

const SIGN_IN_COOKIE_MS = 10 * 60_000
/** Only for our own page, whoever leads there. */
const SESSION_COOKIE_OPTIONS: CookieOptions = { httpOnly: true, secure: true, sameSite: 'strict', path: '/' }
/** The provider's page leads back to us. */
const SIGN_IN_COOKIE_OPTIONS: CookieOptions = { ...SESSION_COOKIE_OPTIONS, sameSite: 'lax' }

/** `GET /auth/<provider>` leads to the provider, which leads back to `…/callback`. */
@Controller('auth')
export class SignInController {
  private readonly logger = new Logger(SignInController.name)

  constructor(
    private readonly service: SignInService,
    private readonly clientAddress: ClientAddress,
  ) {}

  @Get(':provider')
  async startSignIn(
    @Param('provider') provider: string,
    @Query('return_to') returnTo: unknown,
    @Req() request: Request,
    @Res() response: Response,
  ): Promise<void> {
    await this.respond(response, async () => {
      const from = {
        address: this.clientAddress.of(request),
        returnTo: safeReturnPath(returnTo),
        session: cookiesOf(request)[SESSION_COOKIE],
      }
      const begun = await this.service.startSignIn(provider, from)
      if (!begun) throw new SignInError('There is no such way to sign in here.')
      response
        .cookie(signInCookieName(begun.state), begun.browserSecret, {
          ...SIGN_IN_COOKIE_OPTIONS,
          maxAge: SIGN_IN_COOKIE_MS,
        })
        .redirect(303, begun.url.href)
    })
  }

  @Get(':provider/callback')
  async completeSignIn(
    @Param('provider') provider: string,
    @Query('state') state: unknown,
    @Req() request: Request,
    @Res() response: Response,
  ): Promise<void> {
    await this.respond(response, async () => {
      const name = signInCookieName(String(state))
      response.clearCookie(name, SIGN_IN_COOKIE_OPTIONS)
      const from = {
        address: this.clientAddress.of(request),
        path: request.originalUrl,
        browserSecret: cookiesOf(request)[name] ?? '',
      }
      const session = await this.service.completeSignIn(provider, from)
      response
        .cookie(SESSION_COOKIE, session.secret, { ...SESSION_COOKIE_OPTIONS, expires: session.expiresAt })
        .redirect(303, session.returnTo)
    })
  }

  @Post('sign-out')
  @HttpCode(204)
  @UseGuards(AuthGuard)
  @UseFilters(AuthErrorsFilter)
  async signOut(@Auth() principal: Principal, @Res({ passthrough: true }) response: Response): Promise<void> {
    await this.service.signOut(principal)
    response.clearCookie(SESSION_COOKIE, SESSION_COOKIE_OPTIONS)
  }

  private async respond(response: Response, work: () => Promise<void>): Promise<void> {
    response.set('Cache-Control', 'no-store')
    try {
      await work()
    } catch (error) {
      if (error instanceof RateLimitedError) {
        response
          .set('Retry-After', String(error.retryAfterSeconds ?? 0))
          .status(429)
          .type('html')
          .send(errorPage(error.message))
      } else if (error instanceof SignInError) {
        this.logger.warn('A sign-in failed', { reason: causeChainOf(error) })
        response.status(403).type('html').send(errorPage(error.message))
      } else {
        this.logger.error('A sign-in failed', { error })
        response.status(500).type('html').send(errorPage('Something went wrong on our side. Begin again.'))
      }
    }
  }
}

function cookiesOf({ headers }: Request) {
  return parseCookie(headers.cookie ?? '')
}

/** One for each that is under way: two tabs do not disturb each other. */
function signInCookieName(state: string): string {
  return `__Host-shipcast-sign-in-${createHash('sha256').update(state).digest('hex').slice(0, 8)}`
}

/** A path of ours; anything else could lead to somebody else's page. */
function safeReturnPath(path: unknown): string {
  return typeof path === 'string' && /^\/(?![/\\])[!-~]{0,500}$/.test(path) && !path.includes('\\')
    ? path
    : '/'
}

/** What is said of an error and of what has led to it; the rest of them may hold tokens. */
function causeChainOf(error: Error): string {
  return error.cause instanceof Error ? `${error.message} ${causeChainOf(error.cause)}` : error.message
}

function errorPage(sentence: string): string {
  const escaped = sentence.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`)
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>Shipcast: not signed in</title><main><h1>Not signed in</h1><p>${escaped}</p><p><a href="/">Back to Shipcast</a></p></main></html>`
}
