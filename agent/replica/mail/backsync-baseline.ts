import type { FolderName } from './backsync-folders.ts'
import type { Baseline } from './backsync-sides.ts'
import type { FolderState, Ledger } from './ledger.ts'
import type { Flags, Messages } from './merge.ts'
import type { FolderStatus } from './plan.ts'

/** The ledger's account of one folder, as the baseline of its back-sync. */
export class LedgerBaseline implements Baseline {
  readonly #ledger: Ledger
  readonly #user: string
  #state: FolderState
  readonly #messages: Map<number, Flags>

  /** A folder that the ledger does not know begins without messages. `known`: the name it has there. */
  constructor(ledger: Ledger, user: string, folder: FolderName, known = folder.path) {
    this.#ledger = ledger
    this.#user = user
    const { messages, ...state } = ledger.folder(user, known) ?? unknownFolder(folder)
    this.#state = state
    this.#messages = new Map(messages)
  }

  messages(): Messages {
    return this.#messages
  }

  production(): { readonly uidNext: number; readonly highestModSeq: bigint } {
    const { productionUidNext: uidNext, productionModSeq: highestModSeq } = this.#state
    return { uidNext, highestModSeq }
  }

  settle(changed: Messages, gone: ReadonlySet<number> = new Set()): void {
    if (changed.size === 0 && gone.size === 0) return
    for (const [uid, flags] of changed) this.#messages.set(uid, flags)
    for (const uid of gone) this.#messages.delete(uid)
    this.#ledger.applyFolderDelta(this.#user, {
      state: this.#state,
      changed,
      ...(gone.size === 0 ? {} : { present: [...this.#messages.keys()] }),
    })
  }

  /**
   * Where both sides stood when the folder was given back: whoever finds them there later need not look again. The
   * appliance's MODSEQ is the one from before the comparison, since users go on working.
   */
  position(appliance: FolderStatus, highestModSeq: bigint, production: FolderStatus): void {
    this.#state = {
      ...this.#state,
      uidValidity: production.uidValidity,
      uidNext: appliance.uidNext,
      highestModSeq,
      productionUidNext: production.uidNext,
      productionModSeq: production.highestModSeq,
      productionMessages: production.messages,
      productionUnseen: production.unseen,
    }
    this.#ledger.recordStates(this.#user, [this.#state])
  }
}

const unknownFolder = ({ path, uidValidity }: FolderName) => ({
  path,
  uidValidity,
  uidNext: 0,
  highestModSeq: 0n,
  productionUidNext: 0,
  productionModSeq: 0n,
  productionMessages: 0,
  productionUnseen: 0,
  messages: new Map<number, Flags>(),
})
