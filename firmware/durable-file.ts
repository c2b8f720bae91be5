import { createHash } from 'node:crypto'
import { open, readFile, rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Adapter } from 'lowdb'

const checksum = (body: string): string => createHash('sha256').update(body).digest('hex')

/** Makes the names in a directory durable (fsync(2) on the directory itself). */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}

/**
 * A lowdb adapter that survives power loss: a write is on the medium before it is answered, each copy carries a
 * checksum, and the copy before the newest is kept for the day when the newest turns out to be damaged.
 */
export class DurableFile<T> implements Adapter<T> {
  readonly #path: string

  constructor(path: string) {
    this.#path = path
  }

  /** The newest intact copy, else the one before it, else `null`. */
  async read(): Promise<T | null> {
    return (await this.#intact(this.#path)) ?? (await this.#intact(`${this.#path}.previous`))
  }

  /** Answers when the data is on the medium. @throws NodeJS.ErrnoException (ENOSPC, EIO …): the old copy is still there. */
  async write(data: T): Promise<void> {
    const body = JSON.stringify(data)
    const next = await open(`${this.#path}.next`, 'w', 0o600)
    try {
      await next.writeFile(`${checksum(body)}\n${body}`)
      await next.sync()
    } finally {
      await next.close()
    }
    if ((await this.#intact(this.#path)) !== null)
      await rename(this.#path, `${this.#path}.previous`)
    await rename(`${this.#path}.next`, this.#path)
    await syncDirectory(dirname(this.#path))
  }

  async #intact(path: string): Promise<T | null> {
    const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return ''
      throw error
    })
    const [sum, body] = [text.slice(0, 64), text.slice(65)]
    return sum === checksum(body) ? (JSON.parse(body) as T) : null
  }
}
