import type { Row } from './rows.ts'

const HEAD = ['metric', 'value', 'unit', 'target', 'met', 'peer', 'runs', 'min', 'max', 'note']

/** A result for people: one line a metric, columns aligned. */
export function tableOf(rows: readonly Row[]): string {
  const cells = [HEAD, ...rows.map(cellsOf)]
  const widths = HEAD.map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)))
  const line = (row: readonly string[]) =>
    row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ')
  return `${cells.map((row) => line(row).trimEnd()).join('\n')}\n`
}

const cellsOf = (row: Row): readonly string[] => [
  row.metric,
  row.value === null ? '–' : String(row.value),
  row.unit,
  row.target ?? '',
  row.met === null ? '' : row.met ? 'yes' : 'NO',
  row.peer === undefined ? '' : `${row.peer} ${row.peerValue}`,
  String(row.runs),
  String(row.min ?? ''),
  String(row.max ?? ''),
  row.because ?? '',
]
