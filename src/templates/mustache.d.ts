/** The part of mustache 4.2 that we use; it comes without types. */
declare module 'mustache' {
  export type Token = [type: string, value: string, start: number, end: number]

  class Context {
    constructor(view: Readonly<Record<string, string>>)
  }

  /** Keeps all that it has parsed, for as long as it lives. */
  class Writer {
    /** Throws an `Error` for a tag or section without its end. */
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
