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

type Warm = Both & { idle: NodeJS.Timeout | undefined }

/** A pass follows another within this time while standing in; logging in takes longer than a pass without news. */
const IDLE_MS = 30_000
const WARM_MAX = 256
/** ImapFlow would have UTF-8 names on servers that know them; modified UTF-7 every server understands. */
const OPTIONS: ImapFlowOptions = { disableAutoEnable: true }

/** Connections to both servers, account by account, kept open for a while after use. */
export class Connections {
  readonly #openProduction: Open
  readonly #openReplica: Open
  readonly #warm = new Map<string, Warm>()
  readonly #views = new KnownViews()

  constructor(open: { openProduction: Open; openReplica: Open }) {
    this.#openProduction = open.openProduction
    this.#openReplica = open.openReplica
  }

  /**
   * Works with an account at both servers. The work must be repeatable: it is begun anew on fresh connections when
   * those kept open turn out to be dead. @throws {PeerUnreachable} {CredentialRefused} {ProductionUnsuitable}
   */
  async use<T>(user: string, work: (both: Both) => Promise<T>): Promise<T> {
    const kept = this.#warm.get(user)
    this.#warm.delete(user)
    clearTimeout(kept?.idle)
    if (kept !== undefined) {
      try {
        return await this.#with(user, kept, work)
      } catch (error: unknown) {
        if (!(error instanceof PeerUnreachable)) throw error
      }
    }
    return await this.#with(user, await this.#opened(user), work)
  }

  async close(): Promise<void> {
    const all = [...this.#warm.values()]
    this.#warm.clear()
    await Promise.all(all.map(end))
  }

  async #with<T>(user: string, both: Both, work: (both: Both) => Promise<T>): Promise<T> {
    let isSound = false
    try {
      const result = await work(both)
      isSound = true
      return result
    } finally {
      if (isSound && !this.#warm.has(user) && this.#warm.size < WARM_MAX) this.#keep(user, both)
      else await end(both)
    }
  }

  #keep(user: string, both: Both): void {
    const idle = setTimeout(() => {
      this.#warm.delete(user)
      void end(both)
    }, IDLE_MS)
    idle.unref()
    this.#warm.set(user, { ...both, idle })
  }

  async #opened(user: string): Promise<Both> {
    const appliance = await this.#openReplica(user, OPTIONS)
    let production: ImapFlow
    try {
      production = await this.#openProduction(user, OPTIONS)
    } catch (error: unknown) {
      appliance.close()
      throw error
    }
    if (production.capabilities.has('UIDPLUS'))
      return {
        appliance: this.#account(user, appliance, 'the replica'),
        production: this.#account(user, production, 'production'),
      }
    appliance.close()
    production.close()
    throw new ProductionUnsuitable('its IMAP server lacks UIDPLUS (RFC 4315)')
  }

  #account(user: string, client: ImapFlow, peer: string): ImapAccount {
    const others = [...(client.namespaces?.other || []), ...(client.namespaces?.shared || [])]
    return new ImapAccount(
      new ImapSession(client, peer),
      others.map(({ prefix }) => prefix),
      { of: this.#views, prefix: `${peer}\n${user}\n` },
    )
  }
}

const end = async ({ appliance, production }: Both): Promise<void> => {
  await Promise.all([appliance.session.close(), production.session.close()])
}
