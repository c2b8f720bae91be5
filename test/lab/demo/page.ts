import { escaped, spoken } from './markup.ts'
import { gapOf, type Report, type Sight, sightsOf } from './outcome.ts'
import { STYLE } from './style.ts'
import type { Chapter, Tale } from './tale.ts'
import { stateLabel, timelineOf } from './timeline.ts'

/** The run as one self-contained page: no script, no other file, light and dark, for screen and paper. Pure. */
export function pageOf(tale: Tale, report: Report, at: Date): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escaped(headline(tale, report))}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<header>
<p class="kicker">Understudy · one whole life, twice</p>
<h1>${escaped(headline(tale, report))}</h1>
<p class="lead">${escaped(lead(tale, report))}</p>
</header>
${figures(tale, report)}
<section aria-labelledby="run">
<h2 id="run">The run</h2>
<div class="scroll" tabindex="0" role="region" aria-labelledby="run">
${timelineOf(tale)}
</div>
${legend()}
</section>
<div class="columns">
${sights(tale)}
${pledges(report)}
</div>
${states(tale)}
<footer>Made ${escaped(at.toISOString().slice(0, 16).replace('T', ' '))} UTC by <code>npm run demo</code>: real
Dovecot and Postfix, real clients, network namespaces of one machine.</footer>
</main>
</body>
</html>
`
}

const FAULTS: Readonly<Record<Chapter['fault'], string>> = {
  kill: 'Mail servers killed',
  'link-down': 'Cable pulled',
}

function headline(tale: Tale, report: Report): string {
  if (report.broken !== undefined) return 'The run did not reach its end'
  if (!report.ok) return 'Not every promise was kept'
  const worst = Math.max(...tale.chapters.map((chapter) => gapOf(tale, chapter)))
  return `Production failed twice. Users waited ${spoken(worst)} at most.`
}

function lead({ users, chapters }: Tale, { broken, ok, lost, duplicated }: Report): string {
  if (broken !== undefined) return broken
  const people = `${users.length} people kept reading, filing, deleting and sending mail`
  if (!ok) return `${people}. What was not kept is marked below.`
  return `${people} while production went away ${chapters.length} times. The appliance answered at the same address, with the same certificate and passwords, then gave everything back: ${lost} mails lost, ${duplicated} doubled.`
}

function figures(tale: Tale, report: Report): string {
  const done = tale.records.filter((r) => r.kind === 'operation' && r.outcome === 'ok').length
  const gap = (ms: number | null) => (ms === null ? '–' : spoken(ms))
  const all = [
    [gap(report.gapMs.kill), 'longest silence when the servers were killed'],
    [gap(report.gapMs.linkDown), 'longest silence when the cable was pulled'],
    [`${report.lost} / ${report.duplicated}`, 'mails lost / doubled'],
    [String(done), 'things people did, and were promised'],
  ]
  const items = all.map(
    ([n = '', what = '']) => `<div><dt>${what}</dt><dd>${escaped(n)}</dd></div>`,
  )
  return `<dl class="figures">${items.join('')}</dl>`
}

function legend(): string {
  const states = [
    'initialization',
    'transparent-wait',
    'failover',
    'prepare-to-failback',
    'failback',
  ]
  const bands = states.map(
    (name) => `<li><i class="swatch ${name}"></i>${stateLabel(name)} <small>${name}</small></li>`,
  )
  return `<ul class="legend">${bands.join('')}
<li><i class="swatch dot"></i>an answer</li><li><i class="swatch cross">×</i>a session broke, its user reconnected</li>
<li><i class="swatch no"></i>a connection without an answer</li>
<li><i class="swatch rest"></i>everybody rests: both sides are compared</li></ul>`
}

function sights(tale: Tale): string {
  const heads = tale.chapters.map(({ fault }) => `<th scope="col">${FAULTS[fault]}</th>`)
  const row = ({ what, values }: Sight) =>
    `<tr><th scope="row">${escaped(what)}</th>${values.map((v) => `<td>${escaped(v)}</td>`).join('')}</tr>`
  return `<section aria-labelledby="saw"><h2 id="saw">What users saw</h2>
<table><thead><tr><td></td>${heads.join('')}</tr></thead><tbody>
${sightsOf(tale).map(row).join('\n')}
</tbody></table></section>`
}

function pledges({ pledges: all, offenders }: Report): string {
  const items = all.map(
    ({ text, kept, found }) =>
      `<li class="${kept ? 'kept' : 'broken'}"><b>${kept ? 'kept' : 'broken'}</b> ${escaped(text)} <small>${escaped(found)}</small></li>`,
  )
  const guilty = Object.entries(offenders).flatMap(([what, them]) =>
    them.map(({ user, item, why }) => `<li>${escaped(`${what}: ${user} ${item} ${why}`)}</li>`),
  )
  const list = guilty.length === 0 ? '' : `<ul class="offenders">${guilty.join('')}</ul>`
  return `<section aria-labelledby="promised"><h2 id="promised">What was promised</h2>
<ul class="pledges">${items.join('\n')}</ul>${list}</section>`
}

function states({ states: all, startedMs }: Tale): string {
  const rows = all.map(
    ({ name, atMs, because }) =>
      `<tr><td>${((atMs - startedMs) / 1_000).toFixed(1)} s</td><th scope="row">${escaped(name)}</th><td>${escaped(because)}</td></tr>`,
  )
  return `<section aria-labelledby="states"><h2 id="states">The appliance’s own account</h2>
<table class="states"><thead><tr><th scope="col">At</th><th scope="col">State</th><th scope="col">Because</th></tr></thead>
<tbody>${rows.join('\n')}</tbody></table></section>`
}
