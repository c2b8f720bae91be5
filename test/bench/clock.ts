const NS_PER_MS = 1e6

/** Milliseconds on the machine's monotonic clock: the same in all its processes. */
export const monotonicMs = (): number => Number(process.hrtime.bigint()) / NS_PER_MS
