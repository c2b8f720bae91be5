import type { Pledge, Sight } from './outcome.ts'

/** A table for a terminal. Pure. */
export function tableOf(heads: readonly string[], sights: readonly Sight[]): string {
  const rows = [['', ...heads], ...sights.map(({ what, values }) => [what, ...values])]
  const widths = rows[0]?.map((_, n) => Math.max(...rows.map((row) => row[n]?.length ?? 0))) ?? []
  return rows
    .map((row) =>
      row
        .map((cell, n) => cell.padEnd(widths[n] ?? 0))
        .join('   ')
        .trimEnd(),
    )
    .join('\n')
}

/** The promises, one a line. Pure. */
export const pledgesText = (pledges: readonly Pledge[]): string =>
  pledges
    .map(({ text, kept, found }) => `${kept ? 'kept  ' : 'BROKEN'}  ${text} (${found})`)
    .join('\n')
