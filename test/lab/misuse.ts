/** What was typed makes no sense: one line is said, and the exit code is 2. */
export class Misused extends Error {
  override readonly name = 'Misused'
}

/** Whether the words on the command line are at fault, and not the program. */
export const isMisuse = (error: unknown): error is Error =>
  error instanceof Misused ||
  (error instanceof TypeError && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS'))

/** A whole number as typed. @throws {Misused} */
export function wholeNumber(name: string, text: string, least: number): number {
  const value = Number(text)
  if (text.trim() !== '' && Number.isInteger(value) && value >= least) return value
  throw new Misused(`--${name}: ${text} is not a whole number from ${least} on`)
}
