import type { Status } from '../../agent/console/status.ts'

/** A quiet day: production answers, everything is copied. */
export const quietStatus: Status = {
  version: '1.2.3',
  state: 'transparent-wait',
  sinceMs: 7_500_000,
  because: 'every account is complete',
  posture: 'wire',
  accounts: { total: 20, complete: 20, failing: [] },
  services: [
    { service: 'imap:143', verdict: 'healthy', because: 'it answers', sinceMs: 7_500_000 },
    { service: 'smtp:25', verdict: 'healthy', because: 'it answers', sinceMs: 7_500_000 },
  ],
  production: { mac: '02:00:00:77:00:10', reachable: true },
  serving: { queued: 0, liveFlows: 0, unbound: 0 },
  replication: { lagMs: 1_200, lastSweepAgoMs: 125_000 },
  problems: [],
  settings: { path: '/data/understudy/settings.json', accepted: true },
}
