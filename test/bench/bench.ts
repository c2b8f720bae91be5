import type { Metric, Sample } from './rows.ts'

/** What a person may choose. */
export type BenchOptions = {
  /** How often each thing is done; a bench has its own default. */
  readonly runs: number | undefined
  /** Messages of the replication's corpus. */
  readonly messages: number | undefined
  /** Only one of the failover's policies. */
  readonly policy: string | undefined
}

/** What a bench is given. */
export type BenchContext = {
  readonly options: BenchOptions
  /** Aborts when the time is up or somebody interrupts. */
  readonly signal: AbortSignal
  /** Tells a waiting person what goes on. */
  readonly say: (text: string) => void
  /** Takes a metric's values; it stays even when the bench fails later. */
  readonly record: (metric: string, sample: Sample) => void
}

/** One bench. It makes its own beds and removes them, however it ends. */
export type Bench = {
  readonly name: string
  /** Every metric it answers for; one that is not recorded is reported as not measured. */
  readonly metrics: readonly Metric[]
  readonly limitMs: (options: BenchOptions) => number
  readonly measure: (context: BenchContext) => Promise<void>
}
