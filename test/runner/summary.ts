/** How many tests of a file or of all of them ended in which way. */
export type Tally = { readonly passed: number; readonly failed: number; readonly skipped: number }

export const NOTHING: Tally = { passed: 0, failed: 0, skipped: 0 }

export const sum = (tallies: readonly Tally[]): Tally =>
  tallies.reduce(
    (all, one) => ({
      passed: all.passed + one.passed,
      failed: all.failed + one.failed,
      skipped: all.skipped + one.skipped,
    }),
    NOTHING,
  )

/** The closing line, in the words that a continuous integration reads. */
export const closingLine = ({ passed, failed, skipped }: Tally): string =>
  `${passed} passed, ${failed} failed, ${skipped} skipped`

/** How a test file's process ended. `exitCode` is `null` when a signal ended it. */
export type Ending = {
  readonly output: string
  readonly exitCode: number | null
  readonly timedOut: boolean
}

/** What a file's run amounts to, with the reason when the file itself failed, whatever its tests say. */
export function verdictOn({ output, exitCode, timedOut }: Ending): Tally & { because?: string } {
  const tally = tallyIn(output)
  const failure = (because: string) => ({
    ...(tally ?? NOTHING),
    failed: Math.max(tally?.failed ?? 0, 1),
    because,
  })
  if (timedOut)
    return failure(tally === undefined ? 'took too long' : 'did not end: something is still open')
  if (tally === undefined) return failure(`ended with ${exitCode ?? 'a signal'} and no summary`)
  if (tally.passed + tally.failed + tally.skipped === 0) return failure('holds no test')
  if (exitCode !== 0 && tally.failed === 0) return failure(`ended with ${exitCode ?? 'a signal'}`)
  return tally
}

/** uvu's summary at the end of the output. Its `Total` does not count what it skipped. */
function tallyIn(output: string): Tally | undefined {
  const found = [
    ...output.matchAll(/^ {2}Total: +(\d+)\n {2}Passed: +(\d+)\n {2}Skipped: +(\d+)$/gm),
  ]
  const [, total, passed, skipped] = (found.at(-1) ?? []).map(Number)
  if (total === undefined || passed === undefined || skipped === undefined) return undefined
  return { passed, failed: total - passed, skipped }
}
