import type { ImapFlow, ImapFlowOptions } from 'imapflow'
import { ImapAccount } from './backsync-account.ts'
import { ImapSession } from './backsync-session.ts'
import { KnownViews } from './backsync-views.ts'
import { PeerUnreachable } from './imap.ts'

/** Opens an account at one server; the options must reach ImapFlow. */
export type Open = (user: string, options: ImapFlowOptions) => Promise<ImapFlow>

/** Production cannot take back what users did without a person's help. */
export class ProductionUnsuitable extends Error {
  override readonly name = 'ProductionUnsuitable'
  readonly because: string

  constructor(because: string) {
    super(`production cannot be given anything back: ${because}`)
    this.because = because
  }
}

/** An account opened at both servers. */
export type Both = { readonly appliance: ImapAccount; readonly production: ImapAccount }

/** A pass follows another within this time while standing in; logging in takes longer than a pass without news. */
const IDLE_MS = 30_000
const WARM_MAX = 256
/** ImapFlow would have UTF-8 names on servers that know them; modified UTF-7 every server understands. */
const OPTIONS: ImapFlowOptions = { disableAutoEnable: true }

/** Connections to both servers, account by account, kept open for a while after use. */
export class Connections {
  readonly #appliance: Pool
  readonly #production: Pool

  constructor(open: { openProduction: Open; openReplica: Open }) {
    // A pull gives the replica's messages production's MODSEQs, which may be older than what was seen here: what
    // changed since cannot be asked of the replica.
    this.#appliance = new Pool('the replica', open.openReplica, new KnownViews(0))
    this.#production = new Pool('production', open.openProduction, new KnownViews())
  }

  /** Production may have become another one: its folders are read anew. */
  forget(user: string): void {
    this.#production.forget(user)
  }

  /**
   * Works with an account at both servers. The work must be repeatable: it is begun anew on fresh connections when
   * those kept open turn out to be dead. @throws {PeerUnreachable} {CredentialRefused} {ProductionUnsuitable}
   */
  use<T>(user: string, work: (both: Both) => Promise<T>): Promise<T> {
    return this.#appliance.use(user, (appliance) =>
      this.#production.use(user, (production) => work({ appliance, production })),
    )
  }

  /** The same, with the appliance alone: works without production. */
  useAppliance<T>(user: string, work: (appliance: ImapAccount) => Promise<T>): Promise<T> {
    return this.#appliance.use(user, work)
  }

  async close(): Promise<void> {
    await Promise.all([this.#appliance.close(), this.#production.close()])
  }
}

/** Connections to one server, at most one kept open for an account. */
class Pool {
  readonly #peer: string
  readonly #open: Open
  readonly #views: KnownViews
  readonly #warm = new Map<
    string,
    { readonly account: ImapAccount; readonly idle: NodeJS.Timeout }
  >()

  constructor(peer: string, open: Open, views: KnownViews) {
    this.#peer = peer
    this.#open = open
    this.#views = views
  }

  forget(user: string): void {
    this.#views.forget(this.#prefix(user))
  }

  #prefix(user: string): string {
    return `${this.#peer}\n${user}\n`
  }

  async use<T>(user: string, work: (account: ImapAccount) => Promise<T>): Promise<T> {
    const kept = this.#warm.get(user)
    this.#warm.delete(user)
    clearTimeout(kept?.idle)
    if (kept !== undefined) {
      try {
        return await this.#with(user, kept.account, work)
      } catch (error: unknown) {
        if (!(error instanceof PeerUnreachable) || error.peer !== this.#peer) throw error
      }
    }
    return await this.#with(user, await this.#opened(user), work)
  }

  async close(): Promise<void> {
    const all = [...this.#warm.values()]
    this.#warm.clear()
    for (const { idle } of all) clearTimeout(idle)
    await Promise.all(all.map(({ account }) => account.session.close()))
  }

  async #with<T>(
    user: string,
    account: ImapAccount,
    work: (account: ImapAccount) => Promise<T>,
  ): Promise<T> {
    let isSound = false
    try {
      const result = await work(account)
      isSound = true
      return result
    } finally {
      if (isSound && !this.#warm.has(user) && this.#warm.size < WARM_MAX) this.#keep(user, account)
      else await account.session.close()
    }
  }

  #keep(user: string, account: ImapAccount): void {
    const idle = setTimeout(() => {
      this.#warm.delete(user)
      void account.session.close()
    }, IDLE_MS)
    idle.unref()
    this.#warm.set(user, { account, idle })
  }

  async #opened(user: string): Promise<ImapAccount> {
    const client = await this.#open(user, OPTIONS)
    const problem = problemOf(client)
    if (problem !== undefined) {
      client.close()
      throw new ProductionUnsuitable(problem)
    }
    const others = [...(client.namespaces?.other || []), ...(client.namespaces?.shared || [])]
    return new ImapAccount(
      new ImapSession(client, this.#peer),
      others.map(({ prefix }) => prefix),
      { of: this.#views, prefix: this.#prefix(user) },
    )
  }
}

function problemOf({ capabilities, enabled }: ImapFlow): string | undefined {
  if (!capabilities.has('UIDPLUS')) return 'its IMAP server lacks UIDPLUS (RFC 4315)'
  const names = ['UTF8=ACCEPT', 'IMAP4REV2'].find((name) => enabled.has(name))
  return names === undefined
    ? undefined
    : `${names} must not be enabled: mailboxes have other names`
}
