import manifest from '../package.json' with { type: 'json' }

/** The release that this agent belongs to. */
export const VERSION = manifest.version
