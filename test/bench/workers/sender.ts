// Sends mail one at a time, in clear, as another mail server does; prints the monotonic time of each `250`. The plan is
// its argument.
import { setTimeout as delay } from 'node:timers/promises'
import { PORTS, PRODUCTION } from '../../lab/bed/plan.ts'
import { SmtpClient } from '../../lab/clients/smtp.ts'
import { monotonicMs } from '../clock.ts'

const { to, mails, everyMs } = JSON.parse(process.argv[2] ?? '') as {
  to: string
  mails: number
  everyMs: number
}

const client = await SmtpClient.open({ host: PRODUCTION.ipv4, port: PORTS.smtp })
for (let mail = 1; mail <= mails; mail += 1) {
  await delay(everyMs)
  const text = `From: <bench@elsewhere.test>\r\nTo: <${to}>\r\nSubject: ${mail}\r\n\r\nHello.`
  await client.send('bench@elsewhere.test', [to], text)
  process.stdout.write(`${monotonicMs()}\n`)
}
await client.quit()
