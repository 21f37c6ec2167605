/** Runs of the journal, and one of them with its actions as they go. */
import { useQuery } from '@tanstack/react-query';
import { Link, useParams } from '@tanstack/react-router';
import { type ActionFailure, asApplyResult, asVerifyReport } from '../../../provisioner/core/cloud-service.js';
import { about, verifySentence } from '../../../provisioner/core/cloud-words.js';
import type { Problem } from '../../../provisioner/core/problem.js';
import type { Run } from '../api.js';
import { Empty, Failed, Loading, Page, Since, Time } from '../parts/parts.js';
import { Progress, useRunEvents } from '../parts/progress.js';
import { nodesQuery, runQuery, runsQuery } from '../queries.js';
import { plain, span } from '../view/format.js';
import { plannedOf } from '../view/progress.js';

const STATE = {
  running: { glyph: '◐', tone: 'busy' },
  done: { glyph: '●', tone: 'good' },
  failed: { glyph: '✕', tone: 'bad' },
  aborted: { glyph: '⊘', tone: 'wait' },
} as const;

const RunState = ({ run }: { run: Run }) => (
  <span className={`tone-${STATE[run.state].tone}`}>
    <span aria-hidden="true">{STATE[run.state].glyph}</span> {run.state}
  </span>
);

export function Rollouts() {
  const runs = useQuery(runsQuery);
  const nodes = useQuery(nodesQuery);
  const nameOf = (id: string | null) => (id === null ? 'cloud' : (nodes.data?.find(n => n.id === id)?.name ?? id));
  return (
    <Page title="Rollouts">
      {runs.isPending ? <Loading what="the runs" /> : null}
      {runs.isError && !runs.data ? <Failed error={runs.error} again={() => void runs.refetch()} /> : null}
      {runs.data?.length === 0 ? (
        <Empty title="Nothing was rolled out yet.">
          <p>
            Give nodes roles, <Link to="/plan">look at the plan</Link>, and apply it.
          </p>
        </Empty>
      ) : null}
      {runs.data && runs.data.length > 0 ? (
        <div className="scroll" tabIndex={0} role="region" aria-label="Runs">
          <table>
            <thead>
              <tr>
                <th scope="col">Run</th>
                <th scope="col">Of</th>
                <th scope="col">State</th>
                <th scope="col">Began</th>
                <th scope="col">Took</th>
              </tr>
            </thead>
            <tbody>
              {runs.data.map(run => (
                <tr key={run.id}>
                  <th scope="row">
                    <Link to="/rollouts/$run" params={{ run: run.id }}>
                      {plain(run.kind)}
                    </Link>
                  </th>
                  <td>{plain(nameOf(run.nodeId))}</td>
                  <td>
                    <RunState run={run} />
                  </td>
                  <td>
                    <Time ms={run.createdMs} date />
                  </td>
                  <td>{run.endedMs === null ? <Since ms={run.createdMs} /> : span(run.endedMs - run.createdMs)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : null}
    </Page>
  );
}

export function Rollout() {
  const { run: id } = useParams({ from: '/rollouts/$run' });
  const found = useQuery(runQuery(id));
  const events = useRunEvents();
  if (found.isPending)
    return (
      <Page title="Rollout">
        <Loading what="the run" />
      </Page>
    );
  if (!found.data)
    return (
      <Page title="Rollout">
        <Failed error={found.error} again={() => void found.refetch()} />
      </Page>
    );
  const { run, steps } = found.data;
  const applied = asApplyResult(run.result);
  const report = asVerifyReport(run.result);
  const planned = plannedOf(events, id);
  return (
    <Page title={run.kind}>
      <p className="lead">
        <RunState run={run} /> since <Time ms={run.createdMs} date />
        {run.endedMs === null ? null : `, took ${span(run.endedMs - run.createdMs)}`}
        {planned === null ? '' : `, ${planned} actions`}
      </p>
      {applied ? (
        <p>
          {applied.done} of {applied.actions} actions in {about(applied.seconds)}; {applied.failed.length} failed,{' '}
          {applied.blocked.length} wait for them.
        </p>
      ) : report ? (
        <p>{plain(verifySentence(report))}</p>
      ) : run.state === 'failed' ? (
        <FailureOf problem={run.result as Partial<Problem> | null} />
      ) : null}
      {applied?.failed.map(f => (
        <FailureCard key={f.id} failure={f} />
      ))}
      <Progress events={events} runId={id} />
      {steps.length > 0 ? (
        <section aria-labelledby="steps">
          <h2 id="steps">Steps of the journal</h2>
          <ol className="timeline">
            {steps.map(s => (
              <li key={`${s.step} ${s.attempt}`} className={s.state === 'failed' ? 'tone-bad' : undefined}>
                <Time ms={s.beforeMs} />{' '}
                <span className="kind">{{ before: 'goes on', after: 'done', failed: 'failed' }[s.state]}</span>{' '}
                <span className="said">
                  {plain(s.step)}
                  {s.attempt > 1 ? `, try ${s.attempt}` : ''}
                  {s.afterMs === null ? '' : ` (${span(s.afterMs - s.beforeMs)})`}
                </span>
              </li>
            ))}
          </ol>
        </section>
      ) : null}
    </Page>
  );
}

const FailureOf = ({ problem }: { problem: Partial<Problem> | null }) => (
  <div className="failed">
    <p>
      <span aria-hidden="true">✕ </span>
      <strong>{plain(problem?.message ?? 'It failed, and no reason was recorded.')}</strong>
    </p>
    <p>{plain(problem?.hint ?? '')}</p>
  </div>
);

/** What, where, why, the last lines, and the next action. */
function FailureCard({ failure }: { failure: ActionFailure }) {
  const log = failure.problem.detail?.['log'];
  const lines = Array.isArray(log) ? log.filter((l): l is string => typeof l === 'string') : [];
  return (
    <div className="failed">
      <p>
        <span aria-hidden="true">✕ </span>
        <strong>
          {plain(failure.node)} · {plain(failure.service)}: {plain(failure.title)}
        </strong>
      </p>
      <p>{plain(failure.problem.message)}</p>
      {lines.length > 0 ? <pre tabIndex={0}>{lines.map(plain).join('\n')}</pre> : null}
      <p>
        <strong>Next:</strong> {plain(failure.problem.hint)} Then <Link to="/plan">look at the plan</Link> and apply it
        again: what is done stays done.
      </p>
    </div>
  );
}
