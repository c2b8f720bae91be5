// The users: one process in the users' namespace. A plan comes as the first line of standard input; records go out as
// JSON lines. Orders are lines: `pause` and `resume`, and `stop` (or the end of the input), which ends it after the last
// unsent mail has been tried again.
import { createInterface } from 'node:readline'
import { random } from '../fakes/random.ts'
import { ask } from './users/asker.ts'
import { Gate } from './users/gate.ts'
import { MailboxUser } from './users/mailbox-user.ts'
import { nowMs, type UserRecord, type UsersPlan } from './users/records.ts'

const orders = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const first = await orders.next()
const plan = JSON.parse(String(first.value)) as UsersPlan

const write = (record: UserRecord) => process.stdout.write(`${JSON.stringify(record)}\n`)
const stopped = new AbortController()
const gate = new Gate(plan.accounts.length, () => write({ kind: 'paused', atMs: nowMs() }))
const obey = async () => {
  for (;;) {
    const order = await orders.next()
    if (order.value === 'pause') gate.close()
    else gate.open()
    if (order.done === true || order.value === 'stop') return stopped.abort()
  }
}

const everybody = plan.accounts.map(({ user }) => user)

const people = plan.accounts.map(({ user, password }, index) => {
  const person = { user, password, ca: plan.ca, draw: random(plan.seed + index), write }
  return new MailboxUser(
    person,
    everybody.filter((other) => other !== user),
    plan.pauseMs,
    gate,
  ).run(stopped.signal)
})
const [somebody] = plan.accounts
const asker =
  plan.asker === undefined || somebody === undefined
    ? Promise.resolve()
    : ask({ ...plan.asker, ...somebody }, write, stopped.signal)

await Promise.all([obey(), asker, ...people])
process.stdin.destroy()
