/** The part of mustache 4.2 that Shipcast uses; the package has no types. */
declare module 'mustache' {
  export type Token = [type: string, value: string, start: number, end: number]

  class Context {
    constructor(view: Readonly<Record<string, string>>)
  }

  /** Caches everything it parses. */
  class Writer {
    /** Throws an `Error` for an unclosed tag or section. */
    parse(template: string, delimiters: readonly [string, string]): Token[]
    renderTokens(
      tokens: readonly Token[],
      context: Context,
      partials: undefined,
      template: undefined,
      config: { escape: (value: string) => string },
    ): string
  }

  const mustache: { Context: typeof Context; Writer: typeof Writer }
  export default mustache
}
