import { type Line, NotHeard } from './tcp.ts'

export const POP3_FAREWELL = 'QUIT'

/** Greeting and CAPA (RFC 1939 §4, RFC 2449 §5); under TLS where STLS is the rule (RFC 2595). @throws {NotHeard} */
export async function greetPop3(line: Line, thorough: boolean): Promise<string> {
  const greeting = await line.next()
  if (!greeting.startsWith('+OK')) throw new NotHeard('garbled', greeting)
  line.send('CAPA')
  // A server may not know CAPA; that it says so is an answer.
  let said = await line.next()
  if (said.startsWith('+OK')) while (said !== '.') said = await line.next()
  if (thorough && line.endpoint.tls === 'starttls') {
    line.send('STLS')
    said = await line.next()
    if (!said.startsWith('+OK')) throw new NotHeard('garbled', `STLS: ${said}`)
    await line.startTls()
  }
  return greeting
}
