import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite'

/** The ledger cannot be trusted or read. Its file may be set aside: every account is then proved again. */
export class LedgerDamaged extends Error {
  override readonly name = 'LedgerDamaged'
  readonly path: string
  readonly because: string

  constructor(path: string, because: string, cause?: unknown) {
    super(`${path}: ${because}. Set the file aside; the ledger is then built anew`, { cause })
    this.path = path
    this.because = because
  }
}

/** The medium takes nothing at present, for want of room as a rule; what was written before is intact. */
export class LedgerUnwritable extends Error {
  override readonly name = 'LedgerUnwritable'

  constructor(path: string, because: string, cause: unknown) {
    super(`${path} cannot be written: ${because}. Make room; it is tried again`, { cause })
  }
}

/** What is known of one account. */
export type AccountRow = {
  readonly user: string
  /** The replica was equal to production after a quiet pass; only such an account may be served. */
  readonly complete: boolean
  /** Stutter-step passes that ended well, since ever. */
  readonly passes: number
  /** Date of the last pass that ended well. */
  readonly lastPassAtMs?: number
  /** Why the last attempt failed, in words; absent after a success. */
  readonly error?: string
  /** Failures in a row. */
  readonly failures: number
  /** `made`: the replica hands out UIDs and MODSEQs that production has not used. */
  readonly gap: 'none' | 'made'
}

/** One folder without its messages. Paths are joined by `/`, whatever the server's delimiter is. */
export type FolderState = {
  readonly path: string
  readonly uidValidity: number
  /** The replica's own value when the ledger was written. */
  readonly uidNext: number
  /** The replica's own value when the ledger was written. */
  readonly highestModSeq: bigint
  readonly productionUidNext: number
  readonly productionModSeq: bigint
  readonly productionMessages: number
  readonly productionUnseen: number
  /** Compared message by message with production, and not pulled since. Absent: no. */
  readonly proved?: boolean
}

/** Flags of every message that production held at the last pull: UID → sorted flags without `\Recent`. */
export type FolderSnapshot = FolderState & {
  readonly messages: ReadonlyMap<number, readonly string[]>
}

/** What changed in a folder since the ledger was written. `present`, when given, lists every UID that is left. */
export type FolderDelta = {
  readonly state: FolderState
  readonly changed: ReadonlyMap<number, readonly string[]>
  readonly present?: Iterable<number>
}

const SCHEMA_VERSION = 1
const BUSY_MS = 5_000
/** Above this size the check of the whole file would hold up the start for seconds. */
const CHECKED_BYTES_MAX = 64 * 1024 * 1024
/** Result codes SQLITE_FULL and SQLITE_IOERR (https://sqlite.org/rescode.html). */
const UNWRITABLE: readonly number[] = [13, 10]
/** Result codes SQLITE_CORRUPT and SQLITE_NOTADB. */
const DAMAGE: readonly number[] = [11, 26]

const SCHEMA = `
  CREATE TABLE accounts (
    user TEXT PRIMARY KEY, complete INTEGER NOT NULL, passes INTEGER NOT NULL, last_pass_at_ms INTEGER,
    error TEXT, failures INTEGER NOT NULL, gap TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE folders (
    id INTEGER PRIMARY KEY, user TEXT NOT NULL, path TEXT NOT NULL, uid_validity INTEGER NOT NULL,
    uid_next INTEGER NOT NULL, highest_modseq INTEGER NOT NULL, production_uid_next INTEGER NOT NULL,
    production_modseq INTEGER NOT NULL, production_messages INTEGER NOT NULL,
    production_unseen INTEGER NOT NULL, proved INTEGER NOT NULL, UNIQUE (user, path)
  ) STRICT;
  CREATE TABLE messages (
    folder INTEGER NOT NULL REFERENCES folders (id) ON DELETE CASCADE, uid INTEGER NOT NULL,
    flags TEXT NOT NULL, PRIMARY KEY (folder, uid)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE subscriptions (
    user TEXT NOT NULL, path TEXT NOT NULL, PRIMARY KEY (user, path)
  ) STRICT, WITHOUT ROWID;
`

type Row = Record<string, unknown>

/**
 * What production held at the last pull, account by account, on the medium before a write is answered. While the
 * appliance stands in only the takeover writes here, so that it is the snapshot from which changes are told.
 * Every write is one transaction, or a part of one (`together`). Reading a folder of 200,000 messages takes some 30 MB; nothing is kept.
 */
export class Ledger {
  readonly #path: string
  readonly #db: DatabaseSync
  readonly #statements = new Map<string, StatementSync>()

  private constructor(path: string, db: DatabaseSync) {
    this.#path = path
    this.#db = db
  }

  /** Opens the ledger, or makes an empty one. @throws {LedgerDamaged} */
  static open(path: string): Ledger {
    let db: DatabaseSync | undefined
    try {
      db = new DatabaseSync(path, { timeout: BUSY_MS, enableForeignKeyConstraints: true })
      db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL')
      prepare(db, path)
      return new Ledger(path, db)
    } catch (error: unknown) {
      db?.close()
      throw asDamage(path, error)
    }
  }

  close(): void {
    this.#statements.clear()
    this.#db.close()
  }

  /** An account never heard of is incomplete and has no passes. */
  account(user: string): AccountRow {
    const row = this.#get('SELECT * FROM accounts WHERE user = ?', user)
    return row === undefined ? unknownAccount(user) : accountOf(row)
  }

  accounts(): AccountRow[] {
    return this.#all('SELECT * FROM accounts ORDER BY user').map(accountOf)
  }

  /** Changes what is given and keeps the rest; `error: undefined` clears the error. */
  record(
    user: string,
    patch: Partial<{ [K in keyof AccountRow]: AccountRow[K] | undefined }>,
  ): void {
    this.#write(() => {
      const row = { ...this.account(user), ...patch }
      this.#run(
        'INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?)',
        user,
        row.complete ? 1 : 0,
        row.passes ?? 0,
        row.lastPassAtMs ?? null,
        row.error ?? null,
        row.failures ?? 0,
        row.gap ?? 'none',
      )
    })
  }

  /** Makes one transaction of all that `work`, which must not wait, writes: all of it is kept, or nothing. */
  together(work: () => void): void {
    this.#write(work)
  }

  /** Everything about an account is forgotten: it is no longer protected. */
  forgetAccount(user: string): void {
    this.#write(() => {
      this.#run('DELETE FROM folders WHERE user = ?', user)
      this.#run('DELETE FROM subscriptions WHERE user = ?', user)
      this.#run('DELETE FROM accounts WHERE user = ?', user)
    })
  }

  folder(user: string, path: string): FolderSnapshot | undefined {
    const row = this.#get('SELECT * FROM folders WHERE user = ? AND path = ?', user, path)
    if (row === undefined) return undefined
    const statement = this.#statement('SELECT uid, flags FROM messages WHERE folder = ?')
    const messages = new Map<number, readonly string[]>()
    const shared = new Map<string, readonly string[]>()
    this.#guarded(() => {
      for (const message of statement.iterate(Number(row['id']))) {
        const text = String(message['flags'])
        const flags = shared.get(text) ?? flagsOf(text)
        shared.set(text, flags)
        messages.set(Number(message['uid']), flags)
      }
    })
    return { ...stateOf(row), messages }
  }

  /** The folders of an account, without their messages. */
  folders(user: string): FolderState[] {
    return this.#all('SELECT * FROM folders WHERE user = ? ORDER BY path', user).map(stateOf)
  }

  /** How many messages the ledger holds for a folder. */
  messageCount(user: string, path: string): number {
    const row = this.#get(
      'SELECT count(*) AS n FROM messages WHERE folder = (SELECT id FROM folders WHERE user = ? AND path = ?)',
      user,
      path,
    )
    return Number(row?.['n'] ?? 0)
  }

  /** Replaces all that is known of a folder. */
  recordFolder(user: string, snapshot: FolderSnapshot): void {
    this.#write(() => {
      const id = this.#recordState(user, snapshot)
      this.#run('DELETE FROM messages WHERE folder = ?', id)
      this.#recordMessages(id, snapshot.messages)
    })
  }

  /** Applies what changed in a folder; the folder may be a new one. */
  applyFolderDelta(user: string, { state, changed, present }: FolderDelta): void {
    this.#write(() => {
      const id = this.#recordState(user, state)
      this.#recordMessages(id, changed)
      if (present !== undefined) this.#keepOnly(id, present)
    })
  }

  /** Writes what is known of folders besides their messages; folders not known yet are added without any. */
  recordStates(user: string, states: readonly FolderState[]): void {
    if (states.length === 0) return
    this.#write(() => {
      for (const state of states) this.#recordState(user, state)
    })
  }

  renameFolder(user: string, from: string, to: string): void {
    this.#write(() =>
      this.#run(
        'UPDATE OR REPLACE folders SET path = ? WHERE user = ? AND path = ?',
        to,
        user,
        from,
      ),
    )
  }

  forgetFolder(user: string, path: string): void {
    this.#write(() => this.#run('DELETE FROM folders WHERE user = ? AND path = ?', user, path))
  }

  subscriptions(user: string): string[] {
    return this.#all('SELECT path FROM subscriptions WHERE user = ? ORDER BY path', user).map(
      (row) => String(row['path']),
    )
  }

  recordSubscriptions(user: string, paths: readonly string[]): void {
    this.#write(() => {
      this.#run('DELETE FROM subscriptions WHERE user = ?', user)
      for (const path of paths)
        this.#run('INSERT OR IGNORE INTO subscriptions VALUES (?, ?)', user, path)
    })
  }

  #recordState(user: string, state: FolderState): number {
    const row = this.#get(
      `INSERT INTO folders (user, path, uid_validity, uid_next, highest_modseq, production_uid_next,
         production_modseq, production_messages, production_unseen, proved)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (user, path) DO UPDATE SET uid_validity = excluded.uid_validity, uid_next = excluded.uid_next,
         highest_modseq = excluded.highest_modseq, production_uid_next = excluded.production_uid_next,
         production_modseq = excluded.production_modseq, production_messages = excluded.production_messages,
         production_unseen = excluded.production_unseen, proved = excluded.proved
       RETURNING id`,
      user,
      state.path,
      state.uidValidity,
      state.uidNext,
      state.highestModSeq,
      state.productionUidNext,
      state.productionModSeq,
      state.productionMessages,
      state.productionUnseen,
      state.proved === true ? 1 : 0,
    )
    return Number(row?.['id'])
  }

  #recordMessages(folder: number, messages: ReadonlyMap<number, readonly string[]>): void {
    const insert = this.#statement('INSERT OR REPLACE INTO messages VALUES (?, ?, ?)')
    for (const [uid, flags] of messages) insert.run(folder, uid, flags.join(' '))
  }

  #keepOnly(folder: number, present: Iterable<number>): void {
    this.#db.exec('CREATE TEMP TABLE IF NOT EXISTS present (uid INTEGER PRIMARY KEY) STRICT')
    this.#db.exec('DELETE FROM present')
    const insert = this.#statement('INSERT OR IGNORE INTO present VALUES (?)')
    for (const uid of present) insert.run(uid)
    this.#run(
      'DELETE FROM messages WHERE folder = ? AND uid NOT IN (SELECT uid FROM present)',
      folder,
    )
    this.#db.exec('DELETE FROM present')
  }

  #write(change: () => void): void {
    if (this.#db.isTransaction) {
      change()
      return
    }
    this.#guarded(() => {
      this.#db.exec('BEGIN IMMEDIATE')
      try {
        change()
        this.#db.exec('COMMIT')
      } catch (error: unknown) {
        if (this.#db.isTransaction) this.#db.exec('ROLLBACK')
        throw error
      }
    })
  }

  #statement(sql: string): StatementSync {
    const known = this.#statements.get(sql)
    if (known !== undefined) return known
    const statement = this.#db.prepare(sql)
    statement.setReadBigInts(true)
    this.#statements.set(sql, statement)
    return statement
  }

  #run(sql: string, ...values: SQLInputValue[]): void {
    this.#guarded(() => this.#statement(sql).run(...values))
  }

  #get(sql: string, ...values: SQLInputValue[]): Row | undefined {
    return this.#guarded(() => this.#statement(sql).get(...values))
  }

  #all(sql: string, ...values: SQLInputValue[]): Row[] {
    return this.#guarded(() => this.#statement(sql).all(...values))
  }

  #guarded<T>(work: () => T): T {
    try {
      return work()
    } catch (error: unknown) {
      throw asDamage(this.#path, error)
    }
  }
}

function prepare(db: DatabaseSync, path: string): void {
  const version = Number(db.prepare('PRAGMA user_version').get()?.['user_version'])
  if (version > SCHEMA_VERSION)
    throw new LedgerDamaged(path, `it has schema ${version}, made by a later release`)
  if (version === 0)
    db.exec(`BEGIN IMMEDIATE; ${SCHEMA} PRAGMA user_version = ${SCHEMA_VERSION}; COMMIT`)
  const size = db.prepare(
    'SELECT page_count * page_size AS n FROM pragma_page_count, pragma_page_size',
  )
  if (Number(size.get()?.['n']) > CHECKED_BYTES_MAX) return
  const verdict = String(db.prepare('PRAGMA quick_check(1)').get()?.['quick_check'])
  if (verdict !== 'ok') throw new LedgerDamaged(path, verdict)
}

function asDamage(path: string, error: unknown): unknown {
  if (!(error instanceof Error) || !('errcode' in error)) return error
  const code = Number(error.errcode) & 0xff
  if (UNWRITABLE.includes(code)) return new LedgerUnwritable(path, error.message, error)
  const damaged = DAMAGE.includes(code)
  return damaged ? new LedgerDamaged(path, error.message, error) : error
}

const unknownAccount = (user: string): AccountRow => ({
  user,
  complete: false,
  passes: 0,
  failures: 0,
  gap: 'none',
})

const accountOf = (row: Row): AccountRow => ({
  user: String(row['user']),
  complete: Number(row['complete']) === 1,
  passes: Number(row['passes']),
  ...(row['last_pass_at_ms'] === null ? {} : { lastPassAtMs: Number(row['last_pass_at_ms']) }),
  ...(row['error'] === null ? {} : { error: String(row['error']) }),
  failures: Number(row['failures']),
  gap: row['gap'] === 'made' ? 'made' : 'none',
})

const stateOf = (row: Row): FolderState => ({
  path: String(row['path']),
  uidValidity: Number(row['uid_validity']),
  uidNext: Number(row['uid_next']),
  highestModSeq: BigInt(String(row['highest_modseq'])),
  productionUidNext: Number(row['production_uid_next']),
  productionModSeq: BigInt(String(row['production_modseq'])),
  productionMessages: Number(row['production_messages']),
  productionUnseen: Number(row['production_unseen']),
  proved: Number(row['proved']) === 1,
})

const flagsOf = (text: string): readonly string[] => (text === '' ? [] : text.split(' '))
