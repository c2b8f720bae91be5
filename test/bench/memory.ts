import type { Bench } from './bench.ts'
export const memory: Bench = { name: 'memory', metrics: [], limitMs: () => 1, measure: () => Promise.resolve() }
