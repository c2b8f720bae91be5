import type { StateName } from '../continuity/machine.ts'
import { problemLine, type Status } from './status.ts'

const FAILING_LINES_MAX = 10

/** A status in plain words, a sentence a line, for a terminal. */
export function statusLines(status: Status): readonly string[] {
  return [
    headline[status.state](status),
    `State: ${status.state} for ${spanOf(status.sinceMs)}, because ${status.because}.`,
    ...serviceLines(status),
    ...accountLines(status),
    ...servingLines(status),
    ...replicationLines(status),
    ...(status.settings.accepted || status.state === 'unconfigured'
      ? []
      : [
          `The settings in ${status.settings.path} are refused; the last good ones are in force. See: understudy check-settings.`,
        ]),
    ...status.problems.map((problem) => `Problem: ${problemLine(problem)}`),
  ]
}

/** A span of time in its two largest units: `45 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`. */
export function spanOf(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`
  const seconds = Math.round(ms / 1_000)
  const units: readonly (readonly [string, number])[] = [
    ['d', Math.floor(seconds / 86_400)],
    ['h', Math.floor(seconds / 3_600) % 24],
    ['min', Math.floor(seconds / 60) % 60],
    ['s', seconds % 60],
  ]
  const first = units.findIndex(([, amount]) => amount > 0)
  return units
    .slice(first, first + 2)
    .filter(([, amount]) => amount > 0)
    .map(([name, amount]) => `${amount} ${name}`)
    .join(' ')
}

const counted = (amount: number, one: string, many = `${one}s`): string =>
  `${amount} ${amount === 1 ? one : many}`

const readyOf = ({ accounts }: Status): string =>
  accounts.total === 1
    ? `${accounts.complete} of 1 account is ready to take over`
    : `${accounts.complete} of ${accounts.total} accounts are ready to take over`

const answering = (status: Status): string => {
  if (!status.production.reachable) return 'Production does not answer'
  return status.services.every(({ verdict }) => verdict === 'healthy')
    ? 'Production is answering'
    : 'Production answers only in part'
}

const headline: Readonly<Record<StateName, (status: Status) => string>> = {
  unconfigured: () => 'Not set up yet: the wire is a plain bridge, and nothing is protected.',
  initialization: (status) => `${answering(status)}; copying: ${readyOf(status)}.`,
  'transparent-wait': (status) => `${answering(status)}; ${readyOf(status)}.`,
  failover: (status) =>
    `The appliance is answering for production, for ${status.accounts.complete} of ${counted(status.accounts.total, 'account')}.`,
  'prepare-to-failback': () =>
    'Production is answering again; what changed meanwhile is being handed back before it takes over.',
  failback: (status) =>
    `Production takes every new connection; ${counted(status.serving.liveFlows, 'connection')} that began here may finish here.`,
}

function serviceLines({ services }: Status): readonly string[] {
  return services
    .filter(({ verdict }) => verdict !== 'healthy')
    .map(
      ({ service, verdict, because, sinceMs }) =>
        `Service ${service}: ${verdict} for ${spanOf(sinceMs)}, because ${because}.`,
    )
}

function accountLines({ accounts: { failing } }: Status): readonly string[] {
  const rest = failing.length - FAILING_LINES_MAX
  return [
    ...failing
      .slice(0, FAILING_LINES_MAX)
      .map(
        ({ user, error, nextTryInMs }) =>
          `Account ${user} cannot be copied: ${error}. Next try in ${spanOf(nextTryInMs)}.`,
      ),
    ...(rest > 0
      ? [`… and ${counted(rest, 'account')} more; all of them: understudy status --json.`]
      : []),
  ]
}

function servingLines({ serving: { queued, liveFlows, unbound } }: Status): readonly string[] {
  const parts = [
    ...(queued > 0 ? [`${counted(queued, 'mail')} waiting in the queue`] : []),
    ...(liveFlows > 0 ? [`${counted(liveFlows, 'connection')} answered here`] : []),
    ...(unbound > 0 ? [`${counted(unbound, 'change')} not yet handed back to production`] : []),
  ]
  return parts.length === 0 ? [] : [`Here: ${parts.join(', ')}.`]
}

function replicationLines({ replication: { lagMs, lastSweepAgoMs } }: Status): readonly string[] {
  const parts = [
    ...(lagMs === undefined ? [] : [`at most ${spanOf(lagMs)} behind production`]),
    ...(lastSweepAgoMs === undefined ? [] : [`fully compared ${spanOf(lastSweepAgoMs)} ago`]),
  ]
  return parts.length === 0 ? [] : [`The replica is ${parts.join(', ')}.`]
}
