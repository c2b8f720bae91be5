import type { Service } from '../../config.ts'
import { greetImap, IMAP_FAREWELL } from './imap.ts'
import { greetPop3, POP3_FAREWELL } from './pop3.ts'
import { greetSmtp, SMTP_FAREWELL } from './smtp.ts'
import { type Endpoint, Line, NotHeard, type Unheard } from './tcp.ts'

/** What a probe met with. Hearing nothing is a result, not a failure of the probe. */
export type ProbeResult =
  | { readonly heard: true; readonly tookMs: number; readonly said: string }
  | {
      readonly heard: false
      readonly because: Unheard
      readonly afterMs: number
      readonly said: string
    }

/** A connection that stays open after its probe: its end is evidence the instant it comes. */
export type Kept = {
  readonly over: Promise<void>
  /** Ends it politely; not evidence. */
  close(): void
}

export type ProbeOptions = {
  /** The end of patience: the probe answers `silent` when it aborts. */
  readonly signal: AbortSignal
  /** Also negotiates STARTTLS where that is the rule. */
  readonly thorough: boolean
  /** Hears when production's kernel has completed the handshake. */
  readonly accepted: () => void
  readonly now: () => number
}

export type Probed = { readonly result: ProbeResult; readonly kept?: Kept }

const SAID_MAX = 200

const CONVERSATIONS = {
  imap: { greet: greetImap, farewell: IMAP_FAREWELL },
  pop3: { greet: greetPop3, farewell: POP3_FAREWELL },
  smtp: { greet: greetSmtp, farewell: SMTP_FAREWELL },
  submission: { greet: greetSmtp, farewell: SMTP_FAREWELL },
} as const

/** One fresh connection to a service: handshake, TLS, greeting, capabilities. It always ends when its signal aborts. */
export async function probe(
  protocol: Service['protocol'],
  endpoint: Endpoint,
  { signal, thorough, accepted, now }: ProbeOptions,
): Promise<Probed> {
  const askedMs = now()
  const { greet, farewell } = CONVERSATIONS[protocol]
  let line: Line | undefined
  try {
    line = await Line.open(endpoint, signal, accepted)
    const open = line
    const said = (await greet(open, thorough)).slice(0, SAID_MAX)
    const kept = { over: open.over, close: () => open.close(farewell) }
    return { result: { heard: true, tookMs: now() - askedMs, said }, kept }
  } catch (error: unknown) {
    line?.close()
    if (!(error instanceof NotHeard)) throw error
    const said = error.message.slice(0, SAID_MAX)
    return { result: { heard: false, because: error.because, afterMs: now() - askedMs, said } }
  }
}
