import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { inNamespace } from '../../firmware/command.ts'
import type { Bed } from './bed/bed.ts'
import { NODE, PROJECT } from './bed/tools.ts'

/** One connection: TLS as told, a login where the protocol has one, something left or looked for, and the end. */
export type Visit = {
  readonly protocol: 'imap' | 'pop3' | 'smtp' | 'submission'
  readonly host: string
  readonly port: number
  readonly tls: 'none' | 'starttls' | 'implicit'
  readonly ca: string
  readonly user: string
  readonly password: string
  /** A message to append (IMAP), or to send to a user (SMTP). */
  readonly leave?: { readonly id: string; readonly to: string }
  /** The Message-ID to be looked for in INBOX (IMAP). */
  readonly find?: string
}

export type Visited =
  | {
      readonly outcome: 'ok'
      /** How many messages were found, or are there (POP3). */
      readonly found: number
      /** SHA-256 of the server's certificate. */
      readonly certificate?: string
    }
  | { readonly outcome: 'wrong-password' | 'refused' | 'lost'; readonly because: string }

export type Question =
  | { readonly do: 'visit'; readonly visit: Visit }
  | {
      readonly do: 'say'
      readonly name: string
      readonly host: string
      readonly port: number
      readonly line: string
    }

const END_MS = 5_000

/** Somebody in the users' network who connects as told, any number of times at once, and keeps conversations open. */
export class Visitor {
  readonly #child: ChildProcess
  readonly #ca: string
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>()
  #asked = 0

  private constructor(child: ChildProcess, ca: string) {
    this.#child = child
    this.#ca = ca
    child.once('exit', () => {
      for (const { reject } of this.#waiting.values()) reject(new Error('the visitor has gone'))
    })
    if (child.stdout !== null)
      createInterface({ input: child.stdout }).on('line', (line) => this.#take(line))
  }

  static async start(bed: Bed): Promise<Visitor> {
    const ca = await readFile(bed.record.ca, 'utf8')
    const program = join(PROJECT, 'test', 'lab', 'visitor-worker.ts')
    const entered = inNamespace(bed.namespace('users'), { program: NODE, args: [program] })
    const stdio = ['pipe', 'pipe', 'inherit'] as const
    return new Visitor(spawn(entered.program, [...entered.args], { stdio: [...stdio] }), ca)
  }

  visit(visit: Omit<Visit, 'ca'>): Promise<Visited> {
    return this.#ask({ do: 'visit', visit: { ...visit, ca: this.#ca } }) as Promise<Visited>
  }

  /** Says a line in a conversation that stays open from one time to the next; what was heard, or why nothing was. */
  say(name: string, host: string, port: number, line: string): Promise<string> {
    return this.#ask({ do: 'say', name, host, port, line }) as Promise<string>
  }

  async leave(): Promise<void> {
    const gone = once(this.#child, 'exit')
    this.#child.stdin?.end()
    const impatient = setTimeout(() => this.#child.kill('SIGKILL'), END_MS)
    await gone
    clearTimeout(impatient)
  }

  #ask(question: Question): Promise<unknown> {
    this.#asked += 1
    const id = this.#asked
    const answer = Promise.withResolvers<unknown>()
    this.#waiting.set(id, answer)
    this.#child.stdin?.write(`${JSON.stringify({ id, question })}\n`)
    return answer.promise
  }

  #take(line: string): void {
    const { id, answer } = JSON.parse(line) as { id: number; answer: unknown }
    this.#waiting.get(id)?.resolve(answer)
    this.#waiting.delete(id)
  }
}
