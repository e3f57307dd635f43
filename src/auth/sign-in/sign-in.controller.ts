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
import { Auth, type Principal } from '../principal.ts'
import { SignInService, UNKNOWN_PROVIDER } from './sign-in.service.ts'
import { SignInError } from './sign-in-provider.ts'

const SIGN_IN_COOKIE_MS = 10 * 60_000
/** Sent with requests from our own pages only. */
const SESSION_COOKIE_OPTIONS: CookieOptions = { httpOnly: true, secure: true, sameSite: 'strict', path: '/' }
/** Also sent when the provider's page redirects here. */
const SIGN_IN_COOKIE_OPTIONS: CookieOptions = { ...SESSION_COOKIE_OPTIONS, sameSite: 'lax' }

/** `GET /auth/<provider>` redirects to the provider, which redirects back to `…/callback`. */
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
      const started = await this.service.startSignIn(provider, from)
      if (!started) throw new SignInError(UNKNOWN_PROVIDER)
      response
        .cookie(signInCookieName(started.state), started.browserSecret, {
          ...SIGN_IN_COOKIE_OPTIONS,
          maxAge: SIGN_IN_COOKIE_MS,
        })
        .redirect(303, started.url.href)
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
        this.logger.warn('Sign-in failed', { reason: causeChainOf(error) })
        response.status(403).type('html').send(errorPage(error.message))
      } else {
        this.logger.error('Sign-in failed', { error })
        response
          .status(500)
          .type('html')
          .send(
            errorPage('Internal error. Sign in again; if it happens again, ask the operator of Shipcast.'),
          )
      }
    }
  }
}

function cookiesOf({ headers }: Request) {
  return parseCookie(headers.cookie ?? '')
}

/** Each sign-in has its own cookie, so that two tabs do not interfere. */
function signInCookieName(state: string): string {
  return `__Host-shipcast-sign-in-${createHash('sha256').update(state).digest('hex').slice(0, 8)}`
}

/** A path on this server; anything else could redirect to another site. */
function safeReturnPath(path: unknown): string {
  return typeof path === 'string' && /^\/(?![/\\])[!-~]{0,500}$/.test(path) && !path.includes('\\')
    ? path
    : '/'
}

/** The messages of an error and its causes; their other fields may contain tokens. */
function causeChainOf(error: Error): string {
  return error.cause instanceof Error ? `${error.message} ${causeChainOf(error.cause)}` : error.message
}

function errorPage(sentence: string): string {
  const escaped = sentence.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`)
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>Shipcast: not signed in</title><main><h1>Not signed in</h1><p>${escaped}</p><p><a href="/">Back to Shipcast</a></p></main></html>`
}
