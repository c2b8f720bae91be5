import type { AccountRow } from './ledger.ts'
import { type Burst, backoffMs, burstDueMs, hinted } from './plan.ts'

export type AccountStatus = {
  readonly user: string
  readonly complete: boolean
  readonly state: 'waiting' | 'copying' | 'following' | 'failing'
  /** Date of the last stutter-step pass that came to its end. */
  readonly lastPassAtMs?: number
  readonly error?: string
  /** Present while `failing`. */
  readonly nextTryInMs?: number
  /** The replica is known to hold what production held this long ago. */
  readonly lagMs?: number
  /** Differences that do not stand in the way of serving the account. */
  readonly notes: readonly string[]
}

/** What the replicator remembers of one account while it runs; points in time are on the monotonic clock. */
export class Account {
  readonly user: string
  complete: boolean
  error: string | undefined
  failures: number
  lastPassAtMs: number | undefined
  inSyncMs: number | undefined
  copying = false
  notes: readonly string[] = []
  burst: Burst | undefined
  /** Quiet passes in a row that found differences. */
  unequal = 0
  /** Folders that were pulled anew because they differed. */
  readonly anew = new Set<string>()
  /** Checks in a row whose pull did not bring what had been seen. */
  behind = 0
  /** When a pass over the whole account is due. */
  passDueMs = 0
  #checkDueMs = 0
  /** After a failure nothing is tried before. */
  #notBeforeMs = 0

  constructor(row: AccountRow) {
    this.user = row.user
    this.complete = row.complete
    this.error = row.error
    this.failures = row.failures
    this.lastPassAtMs = row.lastPassAtMs
  }

  /** When the next turn, a check or a pass, is due. */
  dueMs(): number {
    const burstMs = this.burst === undefined ? Number.POSITIVE_INFINITY : burstDueMs(this.burst)
    return Math.max(this.#notBeforeMs, Math.min(this.passDueMs, this.#checkDueMs, burstMs))
  }

  /** A turn begins: whatever asks for a look meanwhile asks for another turn. */
  begin(): void {
    this.#checkDueMs = Number.POSITIVE_INFINITY
  }

  hint(nowMs: number): void {
    this.burst = hinted(this.burst, nowMs)
  }

  lookAt(atMs: number): void {
    this.#checkDueMs = Math.min(this.#checkDueMs, atMs)
  }

  succeeded(): void {
    this.failures = 0
    this.error = undefined
    this.#notBeforeMs = 0
  }

  /** What made it fail has gone: nothing keeps it from the next turn. */
  forgive(): void {
    this.#notBeforeMs = 0
  }

  failed(because: string, nowMs: number): void {
    this.failures += 1
    this.error = because
    this.burst = undefined
    this.#notBeforeMs = nowMs + backoffMs(this.failures)
  }

  status(nowMs: number): AccountStatus {
    return {
      user: this.user,
      complete: this.complete,
      state: this.#state(),
      ...(this.lastPassAtMs === undefined ? {} : { lastPassAtMs: this.lastPassAtMs }),
      ...(this.error === undefined ? {} : { error: this.error }),
      ...(this.failures > 0 ? { nextTryInMs: Math.max(0, this.#notBeforeMs - nowMs) } : {}),
      ...(this.inSyncMs === undefined ? {} : { lagMs: nowMs - this.inSyncMs }),
      notes: this.notes,
    }
  }

  #state(): AccountStatus['state'] {
    if (this.failures > 0) return 'failing'
    if (this.copying) return 'copying'
    return this.complete ? 'following' : 'waiting'
  }
}
