/** `error` means that a person must look. */
export type Level = 'debug' | 'info' | 'warn' | 'error'

/** Data of an event. Never a secret, never the content of a message; units in the field's name. */
export type Fields = Readonly<Record<string, unknown>>

/** Records one event, named `noun.verb-past`. */
export type Log = (level: Level, event: string, fields?: Fields) => void

const plain = (value: unknown): unknown => {
  if (value instanceof Error) return value.message
  return typeof value === 'bigint' ? Number(value) : value
}

/** One event as one JSON line. Fields cannot overwrite `at`, `level` and `event`. */
export const lineOf = (at: Date, level: Level, event: string, fields: Fields = {}): string =>
  JSON.stringify({ ...fields, at: at.toISOString(), level, event }, (_, value) => plain(value))

/** A log that writes JSON lines. */
export const jsonLog =
  (write: (line: string) => void, date: () => Date, least: Level = 'info'): Log =>
  (level, event, fields) => {
    if (RANK[level] >= RANK[least]) write(`${lineOf(date(), level, event, fields)}\n`)
  }

const RANK: Readonly<Record<Level, number>> = { debug: 0, info: 1, warn: 2, error: 3 }
