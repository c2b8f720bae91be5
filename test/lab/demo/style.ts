/** The page's style sheet. Colours are variables, so that dark and paper are one block each. */
export const STYLE = `
:root {
  --paper: #fbfaf6; --ink: #1c2530; --soft: #566270; --line: #e2ded3; --card: #fff;
  --initialization: #c3cad2; --transparent-wait: #9ccfb1; --failover: #f0b04f;
  --prepare-to-failback: #c3a9e6; --failback: #8fbcec;
  --answer: #2b7a57; --wait: #35618f; --bad: #b3261e; --good: #1f7a4d; --on-band: #1c2530;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14191f; --ink: #e8eaec; --soft: #a2adb8; --line: #2c343d; --card: #1b222a;
    --initialization: #6f7b88; --transparent-wait: #5fa07e; --failover: #d99a3c;
    --prepare-to-failback: #9d82c9; --failback: #6497cc;
    --answer: #7ed0a8; --wait: #8fbbe8; --bad: #ff8a80; --good: #7ed0a8; --on-band: #0d1116;
  }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif }
main { max-width: 1220px; margin: 0 auto; padding: 3rem 1.5rem 2rem }
.kicker { margin: 0; color: var(--soft); letter-spacing: .04em }
h1 { margin: .2em 0 .3em; font-size: clamp(1.7rem, 4vw, 2.7rem); line-height: 1.15; text-wrap: balance }
h2 { margin: 2.4rem 0 .8rem; font-size: 1.2rem }
.lead { max-width: 46em; margin: 0; font-size: 1.1rem; color: var(--soft) }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: 1rem; margin: 2rem 0 0 }
.figures div { display: flex; flex-direction: column-reverse; justify-content: flex-end; padding: 1rem 1.2rem;
  background: var(--card); border: 1px solid var(--line); border-radius: 10px }
.figures dd { margin: 0; font-size: 2rem; font-weight: 650; line-height: 1.2; font-variant-numeric: tabular-nums }
.figures dt { color: var(--soft); font-size: .92rem }
.scroll { overflow-x: auto; padding: 1rem; background: var(--card); border: 1px solid var(--line); border-radius: 10px }
svg { display: block; width: 100%; min-width: 860px; height: auto; font: 12px system-ui, sans-serif }
svg text { fill: var(--ink); paint-order: stroke; stroke: var(--card); stroke-width: 4px; stroke-linejoin: round }
svg .axis, svg .person { fill: var(--soft); font-size: 11.5px; font-variant-numeric: tabular-nums }
svg .lane { font-weight: 600 }
svg .grid { stroke: var(--line); fill: none }
svg .state { fill: var(--on-band); font-weight: 600; stroke: none }
svg .silence { fill: var(--bad); fill-opacity: .09 }
svg .band { stroke: var(--card); stroke-width: 1 }
svg .dots { fill: none; stroke-linecap: round }
svg .answered { stroke: var(--wait); stroke-width: 2.2; stroke-opacity: .55 }
svg .unanswered { stroke: var(--bad); stroke-width: 4 }
svg .answer { stroke: var(--answer); stroke-width: 5; stroke-opacity: .75 }
svg .break { stroke: var(--bad); stroke-width: 1.6; fill: none }
svg .mark path { stroke-width: 1.4; stroke-dasharray: 4 3; fill: none }
svg .mark text { font-weight: 600 }
svg .fault path { stroke: var(--bad) } svg .fault circle, svg .fault text { fill: var(--bad) }
svg .heal path { stroke: var(--good) } svg .heal circle, svg .heal text { fill: var(--good) }
svg .order path { stroke: var(--soft) } svg .order circle, svg .order text { fill: var(--soft) }
.initialization { fill: var(--initialization); background: var(--initialization) }
.transparent-wait { fill: var(--transparent-wait); background: var(--transparent-wait) }
.failover { fill: var(--failover); background: var(--failover) }
.prepare-to-failback { fill: var(--prepare-to-failback); background: var(--prepare-to-failback) }
.failback { fill: var(--failback); background: var(--failback) }
.rest { fill: var(--line); background: var(--line); fill-opacity: .6 }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; margin: .8rem 0 0; padding: 0; list-style: none; font-size: .9rem }
.legend li { display: flex; align-items: center; gap: .45em }
small { color: var(--soft) }
.swatch { width: 1.1em; height: 1.1em; border-radius: 3px; font-style: normal }
.dot, .no { width: .7em; height: .7em; border-radius: 50%; background: var(--answer) }
.no { background: var(--bad) }
.cross { width: auto; color: var(--bad); font-weight: 700; line-height: 1 }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 0 3rem }
table { width: 100%; border-collapse: collapse }
th, td { padding: .45rem .6rem .45rem 0; border-bottom: 1px solid var(--line); text-align: left; font-weight: 400; vertical-align: top }
thead th { color: var(--soft); font-size: .92rem }
tbody td { font-variant-numeric: tabular-nums }
.columns td { white-space: nowrap }
.states th { white-space: nowrap; padding-right: 1.5rem }
.states td:first-child { white-space: nowrap; width: 6em }
.states td:last-child { width: 62% }
.pledges, .offenders { margin: 0; padding: 0; list-style: none }
.pledges li { display: grid; grid-template-columns: 5.4em 1fr auto; gap: .5em; padding: .45rem 0; border-bottom: 1px solid var(--line) }
.pledges b { font-weight: 650 }
.kept b { color: var(--good) } .kept b::before { content: "✓ " }
.broken b { color: var(--bad) } .broken b::before { content: "✗ " }
.offenders { margin-top: 1rem; color: var(--bad); font-size: .85rem; overflow-wrap: anywhere }
footer { margin-top: 3rem; color: var(--soft); font-size: .88rem }
@media print {
  :root { --paper: #fff; --ink: #000; --soft: #444; --line: #ccc; --card: #fff;
    --initialization: #c3cad2; --transparent-wait: #9ccfb1; --failover: #f0b04f; --prepare-to-failback: #c3a9e6;
    --failback: #8fbcec; --answer: #2b7a57; --wait: #35618f; --bad: #b3261e; --good: #1f7a4d; --on-band: #000 }
  body { font-size: 10.5pt; print-color-adjust: exact; -webkit-print-color-adjust: exact }
  main { max-width: none; padding: 0 }
  svg { min-width: 0 } .scroll { padding: 0; border: 0; overflow: visible }
  section, .figures { break-inside: avoid }
}
`
