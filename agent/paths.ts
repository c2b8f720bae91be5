import { join } from 'node:path'

/** Where the appliance keeps what it must not forget, and its sockets. */
export type Paths = {
  readonly state: string
  readonly journal: string
  readonly ledger: string
  /** A Dovecot home a user. */
  readonly mail: string
  readonly queue: string
  /** Sockets and generated configuration: made anew at every start. */
  readonly run: string
}

export const pathsOf = (state: string): Paths => ({
  state,
  journal: join(state, 'journal'),
  ledger: join(state, 'ledger.db'),
  mail: join(state, 'mail'),
  queue: join(state, 'queue'),
  run: join(state, 'run'),
})
