import pg from 'pg'

/**
 * How results become JavaScript values: int8 is a number (a RangeError beyond 2^53), timestamptz a Date,
 * jsonb an object, bytea a Buffer; the rest is as `pg` does it (numeric stays a string).
 */
export const resultTypes: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number, format: 'text' | 'binary' = 'text') =>
    oid === pg.types.builtins.INT8 && format === 'text'
      ? parseInt8
      : pg.types.getTypeParser(oid, format)) as typeof pg.types.getTypeParser,
}

function parseInt8(text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value)) throw new RangeError(`${text} is too large for a JavaScript number`)
  return value
}
