import { type Line, NotHeard } from './tcp.ts'

export const SMTP_FAREWELL = 'QUIT'

/** Greeting and EHLO (RFC 5321 §4.3.1, §4.1.1.1); under TLS where STARTTLS is the rule (RFC 3207). @throws {NotHeard} */
export async function greetSmtp(line: Line, thorough: boolean): Promise<string> {
  const greeting = await line.next()
  // A banner of several lines may be slow on purpose, to catch those who speak before its end (postscreen(8)).
  if (greeting.startsWith('220-')) return greeting
  if (!greeting.startsWith('220')) throw new NotHeard('garbled', greeting)
  await ask(line, `EHLO [${line.localAddress}]`, '250')
  if (thorough && line.endpoint.tls === 'starttls') {
    await ask(line, 'STARTTLS', '220')
    await line.startTls()
  }
  return greeting
}

async function ask(line: Line, command: string, code: string): Promise<void> {
  line.send(command)
  for (;;) {
    const said = await line.next()
    if (!said.startsWith(code)) throw new NotHeard('garbled', `${command}: ${said}`)
    if (said.charAt(3) !== '-') return
  }
}
