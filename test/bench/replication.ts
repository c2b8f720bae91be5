import type { Bench } from './bench.ts'
export const replication: Bench = { name: 'replication', metrics: [], limitMs: () => 1, measure: () => Promise.resolve() }
