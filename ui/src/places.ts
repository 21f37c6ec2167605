/** The pages: where they are, what they are called, and the key after `g`. */
export const PLACES = [
  { to: '/', title: 'Overview', key: 'h' },
  { to: '/nodes', title: 'Nodes', key: 'n' },
  { to: '/plan', title: 'Plan', key: 'p' },
  { to: '/rollouts', title: 'Rollouts', key: 'r' },
  { to: '/cloud', title: 'Cloud', key: 'c' },
  { to: '/events', title: 'Events', key: 'e' },
] as const;
