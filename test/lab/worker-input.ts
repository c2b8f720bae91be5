import { text } from 'node:stream/consumers'

/** What the process that started this one gave it on standard input. */
export const workerInput = async <T>(): Promise<T> => JSON.parse(await text(process.stdin)) as T

/** Runs one task an item, at most `limit` at the same time; answers come in the items' order. */
export async function inParallel<T, R>(
  items: readonly T[],
  limit: number,
  task: (item: T) => Promise<R>,
): Promise<R[]> {
  const results = new Array<R>(items.length)
  const left = items.entries()
  const lane = async () => {
    for (const [index, item] of left) results[index] = await task(item)
  }
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, lane))
  return results
}
