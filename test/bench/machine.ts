import { cpus, loadavg, release, totalmem } from 'node:os'

const MIB = 1024 * 1024

/** Where a result comes from: figures of different machines do not compare. */
export const machine = () => ({
  cpu: cpus()[0]?.model ?? 'unknown',
  cores: cpus().length,
  memoryMiB: Math.round(totalmem() / MIB),
  kernel: release(),
  node: process.versions.node,
  /** Of the last minute, when it was asked: a machine with other work measures that too. */
  load: Number((loadavg()[0] ?? 0).toFixed(2)),
})
