import { createHash } from 'node:crypto'
import { Controller, Get, HttpCode, Logger, Param, Post, Query, Req, Res } from '@nestjs/common'
import { parseCookie } from 'cookie'
import type { CookieOptions, Request, Response } from 'express'
import { RateLimited } from '../../errors.ts'
import { SESSION_COOKIE } from '../credentials/authenticator.ts'
import { HttpAccess, senderOf } from '../http-access.ts'
import { SignInService } from './sign-in.service.ts'
import { SignInFailed } from './sign-in-provider.ts'

const SIGN_IN_MS = 10 * 60_000
/** Only for our own page, whoever leads there. */
const SESSION: CookieOptions = { httpOnly: true, secure: true, sameSite: 'strict', path: '/' }
/** The provider's page leads back to us. */
const SIGN_IN: CookieOptions = { ...SESSION, sameSite: 'lax' }

/** `GET /auth/<provider>` leads to the provider, which leads back to `…/callback`. */
@Controller('auth')
export class SignInController {
  private readonly logger = new Logger(SignInController.name)

  constructor(
    private readonly service: SignInService,
    private readonly access: HttpAccess,
  ) {}

  @Get(':provider')
  async begin(
    @Param('provider') provider: string,
    @Query('return_to') returnTo: unknown,
    @Req() request: Request,
    @Res() response: Response,
  ): Promise<void> {
    await this.answer(response, async () => {
      const from = {
        address: this.access.addressOf(request),
        returnTo: ownPath(returnTo),
        session: cookiesOf(request)[SESSION_COOKIE],
      }
      const begun = await this.service.begin(provider, from)
      if (!begun) throw new SignInFailed('There is no such way to sign in here.')
      response
        .cookie(signInCookie(begun.state), begun.browserSecret, { ...SIGN_IN, maxAge: SIGN_IN_MS })
        .redirect(303, begun.url.href)
    })
  }

  @Get(':provider/callback')
  async finish(
    @Param('provider') provider: string,
    @Query('state') state: unknown,
    @Req() request: Request,
    @Res() response: Response,
  ): Promise<void> {
    await this.answer(response, async () => {
      const name = signInCookie(String(state))
      response.clearCookie(name, SIGN_IN)
      const from = {
        address: this.access.addressOf(request),
        path: request.originalUrl,
        browserSecret: cookiesOf(request)[name] ?? '',
      }
      const session = await this.service.finish(provider, from)
      response
        .cookie(SESSION_COOKIE, session.secret, { ...SESSION, expires: session.expiresAt })
        .redirect(303, session.returnTo)
    })
  }

  @Post('sign-out')
  @HttpCode(204)
  async signOut(@Req() request: Request, @Res({ passthrough: true }) response: Response): Promise<void> {
    await this.service.signOut(senderOf(request))
    response.clearCookie(SESSION_COOKIE, SESSION)
  }

  private async answer(response: Response, work: () => Promise<void>): Promise<void> {
    response.set('Cache-Control', 'no-store')
    try {
      await work()
    } catch (error) {
      if (error instanceof RateLimited) {
        response
          .set('Retry-After', String(error.retryAfterSeconds ?? 0))
          .status(429)
          .type('html')
          .send(page(error.message))
      } else if (error instanceof SignInFailed) {
        this.logger.warn('A sign-in failed', { reason: reasonOf(error) })
        response.status(403).type('html').send(page(error.message))
      } else {
        this.logger.error('A sign-in failed', { error })
        response.status(500).type('html').send(page('Something went wrong on our side. Begin again.'))
      }
    }
  }
}

function cookiesOf({ headers }: Request) {
  return parseCookie(headers.cookie ?? '')
}

/** One for each that is under way: two tabs do not disturb each other. */
function signInCookie(state: string): string {
  return `__Host-shipcast-sign-in-${createHash('sha256').update(state).digest('hex').slice(0, 8)}`
}

/** A path of ours; anything else could lead to somebody else's page. */
function ownPath(path: unknown): string {
  return typeof path === 'string' && /^\/(?![/\\])[!-~]{0,500}$/.test(path) && !path.includes('\\')
    ? path
    : '/'
}

/** What is said of an error and of what has led to it; the rest of them may hold tokens. */
function reasonOf(error: Error): string {
  return error.cause instanceof Error ? `${error.message} ${reasonOf(error.cause)}` : error.message
}

function page(sentence: string): string {
  const escaped = sentence.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`)
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>Shipcast: not signed in</title><main><h1>Not signed in</h1><p>${escaped}</p><p><a href="/">Back to Shipcast</a></p></main></html>`
}
