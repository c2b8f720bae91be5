/** What a bench measures, and how good it must be. */
export type Metric = {
  /** Dotted and stable: other programs look for it. */
  readonly metric: string
  readonly unit: string
  readonly target?: Target
}
export type Target = { readonly atMost: number } | { readonly atLeast: number }

/** The values of all runs, and which figure of theirs counts. */
export type Sample = {
  readonly values: readonly number[]
  readonly of: 'median' | 'p95' | 'sum' | 'max'
  /** Another program that did the same in the same run. */
  readonly peer?: { readonly name: string; readonly value: number }
  /** What a reader must know to judge the figure. */
  readonly note?: string
}

/** One line of a result. `value` is null when it could not be measured; `because` says why, or what to know of it. */
export type Row = {
  readonly metric: string
  readonly value: number | null
  readonly unit: string
  readonly target: string | null
  readonly met: boolean | null
  readonly peer?: string
  readonly peerValue?: number
  readonly runs: number
  readonly min: number | null
  readonly max: number | null
  readonly because?: string
}

const DIGITS = 3

/** A measured metric. A sample without values is one that was not measured. */
export function measured(metric: Metric, sample: Sample): Row {
  const { values, of, peer, note } = sample
  if (values.length === 0) return unmeasured(metric, note ?? 'no run gave a value')
  const value = rounded(figure(values, of))
  const { target } = metric
  return {
    metric: metric.metric,
    value,
    unit: metric.unit,
    target: target === undefined ? null : targetText(target),
    met: target === undefined ? null : meets(value, target),
    ...(peer === undefined ? {} : { peer: peer.name, peerValue: rounded(peer.value) }),
    runs: values.length,
    min: rounded(Math.min(...values)),
    max: rounded(Math.max(...values)),
    ...(note === undefined ? {} : { because: note }),
  }
}

/** A metric that has no value, and why. */
export const unmeasured = ({ metric, unit, target }: Metric, because: string): Row => ({
  metric,
  value: null,
  unit,
  target: target === undefined ? null : targetText(target),
  met: null,
  runs: 0,
  min: null,
  max: null,
  because,
})

function figure(values: readonly number[], of: Sample['of']): number {
  switch (of) {
    case 'median':
      return median(values)
    case 'p95':
      return percentile(values, 0.95)
    case 'sum':
      return values.reduce((sum, value) => sum + value, 0)
    case 'max':
      return Math.max(...values)
  }
}

const ascending = (values: readonly number[]) => [...values].sort((a, b) => a - b)

/** The middle value, or the mean of the two in the middle; NaN of nothing. */
export function median(values: readonly number[]): number {
  const sorted = ascending(values)
  const upper = sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
  const lower = sorted[Math.ceil(sorted.length / 2) - 1] ?? Number.NaN
  return (lower + upper) / 2
}

/** The nearest-rank percentile: of few values the greatest. NaN of nothing. */
export const percentile = (values: readonly number[], share: number): number =>
  ascending(values)[Math.ceil(values.length * share) - 1] ?? Number.NaN

const meets = (value: number, target: Target): boolean =>
  'atMost' in target ? value <= target.atMost : value >= target.atLeast

const targetText = (target: Target): string =>
  'atMost' in target ? `≤ ${target.atMost}` : `≥ ${target.atLeast}`

const rounded = (value: number): number => Number(value.toFixed(DIGITS))
