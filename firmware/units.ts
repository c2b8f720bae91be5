declare const unit: unique symbol

/** A number that carries its unit in its type, so that two of them cannot be mixed up. */
export type Unit<Name extends string> = number & { readonly [unit]: Name }

/** A duration, or a point on the monotonic clock, in milliseconds. */
export type Milliseconds = Unit<'ms'>

/** @throws {RangeError} for anything that is not a finite, non-negative number. */
export const milliseconds = (n: number): Milliseconds => {
  if (!Number.isFinite(n) || n < 0) throw new RangeError(`not a duration: ${n} ms`)
  return n as Milliseconds
}
