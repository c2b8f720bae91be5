import type { UserRecord } from '../users/records.ts'
import { escaped, spoken } from './markup.ts'
import type { Tale } from './tale.ts'

const WIDTH = 1_160
const LEFT = 108
const RIGHT = 16
const FLAGS = { top: 0, height: 44 }
const BAND = { top: 48, height: 30 }
const WAITING = { top: 116, height: 150 }
const PEOPLE = { top: 306, lane: 19 }
const AXIS_HEIGHT = 34
const WAIT_MS = { least: 0.5, most: 20_000 }
const WAIT_LINES_MS = [1, 10, 100, 1_000, 10_000]
/** A band narrower than this has no room for its name. */
const NAME_WIDTH_PER_LETTER = 6.9

const NAMES: Readonly<Record<string, string>> = {
  initialization: 'copying',
  'transparent-wait': 'wire',
  failover: 'standing in',
  'prepare-to-failback': 'writing back',
  failback: 'handing over',
}

/** What a state is called in the drawing. */
export const stateLabel = (name: string): string => NAMES[name] ?? name

/** The run as one drawing (SVG): states, what was done to production, how long each answer took, and who got one. Pure. */
export function timelineOf(tale: Tale): string {
  const bottom = PEOPLE.top + tale.users.length * PEOPLE.lane
  const height = bottom + AXIS_HEIGHT
  const x = scaleOf(tale)
  return [
    `<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-labelledby="timeline-title timeline-text">`,
    '<title id="timeline-title">The run from beginning to end</title>',
    `<desc id="timeline-text">${escaped(inWords(tale))}</desc>`,
    rests(tale, x, bottom),
    silences(tale, x, bottom),
    axis(tale, x, bottom),
    bands(tale, x),
    waiting(tale, x),
    people(tale, x),
    marks(tale, x, bottom),
    '</svg>',
  ].join('\n')
}

type Scale = (atMs: number) => number

const scaleOf = ({ startedMs, endedMs }: Tale): Scale => {
  const perMs = (WIDTH - LEFT - RIGHT) / Math.max(1, endedMs - startedMs)
  return (atMs) => LEFT + (atMs - startedMs) * perMs
}

const at = (n: number): string => n.toFixed(1).replace(/\.0$/, '')

function inWords(tale: Tale): string {
  const since = (atMs: number) => spoken(atMs - tale.startedMs)
  const states = tale.states.map(({ name, atMs }) => `${stateLabel(name)} from ${since(atMs)}`)
  const marks = tale.marks.map(({ label, atMs }) => `${label} at ${since(atMs)}`)
  return `States: ${states.join(', ')}. Happenings: ${marks.join(', ')}.`
}

function axis({ startedMs, endedMs }: Tale, x: Scale, bottom: number): string {
  const lengthS = (endedMs - startedMs) / 1_000
  const stepS = [5, 10, 20, 30, 60].find((step) => lengthS / step <= 16) ?? 120
  const ticks = Array.from({ length: Math.floor(lengthS / stepS) + 1 }, (_, n) => n * stepS)
  return ticks
    .map((tickS) => {
      const place = at(x(startedMs + tickS * 1_000))
      return (
        `<path class="grid" d="M${place} ${WAITING.top}V${bottom}"/>` +
        `<text class="axis" x="${place}" y="${bottom + 20}" text-anchor="middle">${tickS} s</text>`
      )
    })
    .join('\n')
}

function rests({ rests: all, users }: Tale, x: Scale, bottom: number): string {
  const height = users.length * PEOPLE.lane
  return all
    .map(({ fromMs, toMs }) => {
      const from = x(fromMs)
      return `<rect class="rest" x="${at(from)}" y="${bottom - height}" width="${at(x(toMs) - from)}" height="${height}"/>`
    })
    .join('\n')
}

/** From each failure to the moment in which the appliance answered. */
function silences({ chapters }: Tale, x: Scale, bottom: number): string {
  return chapters
    .map(({ faultMs, failoverMs }) => {
      const [from, to] = [x(faultMs), x(failoverMs)]
      const height = bottom - WAITING.top
      return `<rect class="silence" x="${at(from)}" y="${WAITING.top}" width="${at(to - from)}" height="${height}"/>`
    })
    .join('\n')
}

function bands({ states, endedMs, startedMs }: Tale, x: Scale): string {
  const title = `<text class="lane" x="0" y="${BAND.top + 20}">Appliance</text>`
  const drawn = states.map(({ name, atMs, because }, index) => {
    const from = x(Math.max(atMs, startedMs))
    const width = Math.max(1.5, x(states[index + 1]?.atMs ?? endedMs) - from)
    const label = stateLabel(name)
    const fits = width > label.length * NAME_WIDTH_PER_LETTER + 8
    const text = fits
      ? `<text class="state" x="${at(from + width / 2)}" y="${BAND.top + 20}" text-anchor="middle">${label}</text>`
      : ''
    return (
      `<g><title>${escaped(`${name}: ${because}`)}</title>` +
      `<rect class="band ${escaped(name)}" x="${at(from)}" y="${BAND.top}" width="${at(width)}" height="${BAND.height}"/>${text}</g>`
    )
  })
  return [title, ...drawn].join('\n')
}

const waitHeight = (ms: number): number => {
  const bounded = Math.min(WAIT_MS.most, Math.max(WAIT_MS.least, ms))
  const share = Math.log(bounded / WAIT_MS.least) / Math.log(WAIT_MS.most / WAIT_MS.least)
  return WAITING.top + WAITING.height * (1 - share)
}

/** Dots as one path each: a round cap on a line of no length. */
const dots = (className: string, places: readonly (readonly [number, number])[]): string =>
  places.length === 0
    ? ''
    : `<path class="dots ${className}" d="${places.map(([dx, dy]) => `M${at(dx)} ${at(dy)}h0`).join('')}"/>`

function waiting({ records }: Tale, x: Scale): string {
  const asked = records.filter((record) => record.kind === 'asked')
  const place = ({ startedMs, endedMs }: { startedMs: number; endedMs: number }) =>
    [x(startedMs), waitHeight(endedMs - startedMs)] as const
  const lines = WAIT_LINES_MS.map(
    (ms) =>
      `<path class="grid" d="M${LEFT} ${at(waitHeight(ms))}H${WIDTH - RIGHT}"/>` +
      `<text class="axis" x="${LEFT - 8}" y="${at(waitHeight(ms) + 4)}" text-anchor="end">${ms < 1_000 ? `${ms} ms` : `${ms / 1_000} s`}</text>`,
  )
  return [
    `<text class="lane" x="0" y="${WAITING.top - 14}">How long a new connection waited for its greeting (one every 20 ms)</text>`,
    ...lines,
    dots('answered', asked.filter(({ outcome }) => outcome === 'answered').map(place)),
    dots('unanswered', asked.filter(({ outcome }) => outcome !== 'answered').map(place)),
  ].join('\n')
}

function people({ users, records }: Tale, x: Scale): string {
  const heading = `<text class="lane" x="0" y="${PEOPLE.top - 14}">Every answer each person got</text>`
  const lanes = users.map((user, index) => {
    const y = PEOPLE.top + (index + 0.5) * PEOPLE.lane
    const mine = records.filter((record) => 'user' in record && record.user === user)
    return [
      `<text class="person" x="${LEFT - 10}" y="${at(y + 4)}" text-anchor="end">${escaped(user)}</text>`,
      `<path class="grid" d="M${LEFT} ${at(y)}H${WIDTH - RIGHT}"/>`,
      dots(
        'answer',
        answers(mine, 'ok').map((atMs) => [x(atMs), y]),
      ),
      crosses(breaks(mine).map((atMs) => [x(atMs), y])),
    ].join('\n')
  })
  return [heading, ...lanes].join('\n')
}

const answers = (records: readonly UserRecord[], outcome: 'ok'): number[] =>
  records.flatMap((r) => (r.kind === 'operation' && r.outcome === outcome ? [r.endedMs] : []))

const breaks = (records: readonly UserRecord[]): number[] =>
  records.flatMap((r) => (r.kind === 'lost' ? [r.atMs] : []))

const crosses = (places: readonly (readonly [number, number])[]): string =>
  places.length === 0
    ? ''
    : `<path class="break" d="${places
        .map(([dx, dy]) => `M${at(dx - 3)} ${at(dy - 3)}l6 6m0 -6l-6 6`)
        .join('')}"/>`

function marks(tale: Tale, x: Scale, bottom: number): string {
  return tale.marks
    .map(({ kind, label, atMs }) => {
      const place = x(atMs)
      const [anchor, shift] = place > WIDTH - 220 ? ['end', -7] : ['start', 7]
      return (
        `<g class="mark ${kind}"><path d="M${at(place)} ${FLAGS.top + 16}V${bottom}"/>` +
        `<circle cx="${at(place)}" cy="${FLAGS.top + 20}" r="4.5"/>` +
        `<text x="${at(place + shift)}" y="${FLAGS.top + 24}" text-anchor="${anchor}">${escaped(label)}</text></g>`
      )
    })
    .join('\n')
}
