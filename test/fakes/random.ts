/** A seeded source of numbers in [0, 1): the same seed gives the same walk on every machine (mulberry32). */
export function random(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** One of the items; there must be at least one. @throws {RangeError} */
export function pick<T>(draw: () => number, items: readonly T[]): T {
  const item = items[Math.floor(draw() * items.length)]
  if (item === undefined) throw new RangeError('nothing to pick from')
  return item
}

/** A whole number from `least` to `most`, both included. */
export const whole = (draw: () => number, least: number, most: number): number =>
  least + Math.floor(draw() * (most - least + 1))
