import net from 'node:net'
import { type Answer, answerIn, PROTOCOL_VERSION } from './protocol.ts'

/** A status with thousands of failing accounts still fits. */
const ANSWER_CHARACTERS_MAX = 4 * 1024 * 1024
/** Longer than the agent gives itself, so that its own words arrive. */
const ANSWER_MS = 40_000

/** The agent did not answer: it is not running, or what answers is not the agent. */
export class AgentUnreachable extends Error {
  override readonly name = 'AgentUnreachable'
}

/** Asks the agent that listens on the socket `path`. @throws {AgentUnreachable} with where and what is wrong. */
export async function ask(
  path: string,
  verb: string,
  args: Readonly<Record<string, unknown>> = {},
  { timeoutMs = ANSWER_MS }: { readonly timeoutMs?: number } = {},
): Promise<Answer> {
  const request = JSON.stringify({ version: PROTOCOL_VERSION, verb, arguments: args })
  const answer = answerIn(await exchange(path, request, timeoutMs))
  if (answer === undefined)
    throw new AgentUnreachable(`${path}: an answer that this program does not understand`)
  return answer
}

/** One line there, one line back. */
function exchange(path: string, request: string, timeoutMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(path)
    const finish = (end: () => void) => {
      clearTimeout(timer)
      socket.destroy()
      end()
    }
    const fail = (because: string, cause?: unknown) =>
      finish(() => reject(new AgentUnreachable(`${path}: ${because}`, { cause })))
    const timer = setTimeout(() => fail(`no answer within ${timeoutMs / 1_000} s`), timeoutMs)
    let received = ''
    socket.setEncoding('utf8')
    socket.on('connect', () => socket.write(`${request}\n`))
    socket.on('error', (error) => fail(error.message, error))
    socket.on('close', () => fail('closed without an answer'))
    socket.on('data', (text: string) => {
      received += text
      const end = received.indexOf('\n')
      if (end >= 0) finish(() => resolve(received.slice(0, end)))
      else if (received.length > ANSWER_CHARACTERS_MAX) fail('an answer without an end')
    })
  })
}
