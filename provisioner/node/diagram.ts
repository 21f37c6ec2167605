/** The lifecycle page of the docs, generated from the table. Pure. */
import { BASE_STATES, type NodeEvent, STATES, stateLabel, TRANSITIONS, WORKING_STATES } from './lifecycle.js';

export function lifecyclePage(): string {
  const events = Object.keys(TRANSITIONS) as NodeEvent[];
  const rows = events.map(e => {
    const t: { from: readonly string[]; to: string; action: boolean } = TRANSITIONS[e];
    const to = t.to === 'failure' ? '*its failure state*' : t.to === 'previous' ? '*where the rescue began*' : t.to;
    return `| \`${e}\` | ${t.action ? 'operator' : 'state loop'} | ${t.from.join(', ')} | ${to} |`;
  });
  const arrows = events.flatMap(e => {
    const t: { from: readonly string[]; to: string } = TRANSITIONS[e];
    if (t.to === 'failure' || t.to === 'previous') return [];
    return t.from.filter(f => (BASE_STATES as string[]).includes(f)).map(f => `  ${f} --> ${t.to}: ${e}`);
  });
  return `# The lifecycle of a node

Generated from \`provisioner/node/lifecycle.ts\` by \`npm run docs\`; a test holds it current.

\`\`\`mermaid
stateDiagram-v2
  [*] --> discovered
${arrows.join('\n')}
\`\`\`

| state | kind | shown as |
|---|---|---|
${BASE_STATES.map(s => `| ${s} | ${STATES[s].kind} | ${stateLabel(s)} |`).join('\n')}
${WORKING_STATES.map(s => `| ${s}-failed | failure | ${stateLabel(`${s}-failed`)} |`).join('\n')}

Every working state has a deadline (\`deadlines\` of the site file); when it passes, the node goes to the state's failure
state with the sentence of what it was waiting for. \`maintenance\`, \`unreachable\` and \`overdue\` are flags beside the state.
A [profile](profiles.md) with \`auto_claim\` orders \`claim\` itself, for a node that comes from its inspection.

| event | ordered by | from | to |
|---|---|---|---|
${rows.join('\n')}
`;
}
