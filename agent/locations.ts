import { type Paths, pathsOf } from './paths.ts'

/** Where an installed appliance keeps things; the lab and tests say otherwise by two environment variables. */
export const locations = (
  env: NodeJS.ProcessEnv,
): { readonly settingsFile: string; readonly paths: Paths } => ({
  settingsFile: env['UNDERSTUDY_SETTINGS'] ?? '/data/understudy/settings.json',
  paths: pathsOf(env['UNDERSTUDY_STATE'] ?? '/data/understudy'),
})
