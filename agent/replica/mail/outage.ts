import { backoffMs } from './plan.ts'

type Lost = {
  readonly because: string
  readonly failures: number
  readonly triedMs: number
  readonly nextMs: number
}

/** So many accounts in a row that cannot reach a peer: it is the peer, not the account. */
const UNREACHED_MAX = 2
/** Hints do not make tries come closer together than this. */
const TRY_GAP_MS = 250

/** Tells the loss of a peer, which concerns every account, from the trouble of one account. */
export class Outage<Account> {
  readonly #enough: number
  /** Accounts that, in a row, could not reach a peer. */
  readonly #unreached = new Set<Account>()
  #lost: Lost | undefined

  constructor(accounts: number) {
    this.#enough = Math.min(UNREACHED_MAX, accounts)
  }

  /** Why no account can be replicated at present. */
  get because(): string | undefined {
    return this.#lost?.because
  }

  /** When one account may try whether the peer is back; nothing while none is lost. */
  get nextTryMs(): number | undefined {
    return this.#lost?.nextMs
  }

  /** An account could not reach a peer. Answers whether the peer is lost from now on. */
  unreached(account: Account, because: string, nowMs: number): boolean {
    this.#unreached.add(account)
    if (this.#unreached.size < this.#enough) return false
    const wasLost = this.#lost !== undefined
    const failures = (this.#lost?.failures ?? 0) + 1
    this.#lost = { because, failures, triedMs: nowMs, nextMs: nowMs + backoffMs(failures) }
    return !wasLost
  }

  /** An account reached the peers. Answers the accounts that suffered, when a peer had been lost. */
  reached(): readonly Account[] | undefined {
    const suffered = this.#lost === undefined ? undefined : [...this.#unreached]
    this.forget()
    return suffered
  }

  /** Something hints that the peer may be back. */
  hinted(nowMs: number): void {
    if (this.#lost === undefined) return
    const nextMs = Math.max(nowMs, this.#lost.triedMs + TRY_GAP_MS)
    this.#lost = { ...this.#lost, nextMs: Math.min(this.#lost.nextMs, nextMs) }
  }

  forget(): void {
    this.#lost = undefined
    this.#unreached.clear()
  }
}
