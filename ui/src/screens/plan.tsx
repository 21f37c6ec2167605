/** The plan that the command line prints, to be read before it is applied. */
import { useMutation, useQuery } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';
import { useState } from 'react';
import type { ActionView } from '../../../provisioner/core/cloud-service.js';
import { about, planSentence, type Sign, signOf } from '../../../provisioner/core/cloud-words.js';
import { api, asProblem, type PlanView } from '../api.js';
import { Act, Empty, Failed, Loading, Page, Time, TypeToConfirm } from '../parts/parts.js';
import { planQuery } from '../queries.js';
import { diffLines } from '../view/diff.js';
import { count, plain } from '../view/format.js';

const SIGN_WORD: Readonly<Record<Sign, string>> = {
  '+': 'adds',
  '~': 'changes',
  '!': 'interrupts',
  x: 'removes or destroys',
};

export function PlanPage() {
  const plan = useQuery(planQuery);
  return (
    <Page
      title="Plan"
      aside={
        <Act onClick={() => void plan.refetch()} busy={plan.isFetching}>
          Look again
        </Act>
      }
    >
      {plan.isPending ? <Loading what="the nodes, to see what an apply would do" /> : null}
      {plan.isError ? (
        asProblem(plan.error).code === 'cloud-missing' ? (
          <Empty title="This site has no cloud.">
            <p>{plain(asProblem(plan.error).message)} Add it to the site file, and start the server again.</p>
          </Empty>
        ) : (
          <Failed error={plan.error} again={() => void plan.refetch()} />
        )
      ) : null}
      {plan.data ? <Review key={plan.data.hash} plan={plan.data} /> : null}
    </Page>
  );
}

/** Nodes on which data dies: each has to be named. */
const deadly = (plan: PlanView) => [...new Set(plan.actions.filter(a => a.destroys !== null).map(a => a.node))];

function Review({ plan }: { plan: PlanView }) {
  const navigate = useNavigate();
  const [typed, setTyped] = useState<ReadonlySet<string>>(new Set());
  const names = deadly(plan);
  const apply = useMutation({
    mutationFn: () => api.apply(plan.hash, names),
    onSuccess: ({ runId }) => void navigate({ to: '/rollouts/$run', params: { run: runId } }),
  });
  const refused = plan.problems.some(p => p.severity === 'refuse');
  const missing = names.filter(n => !typed.has(n));
  const nodes = [
    ...plan.nodes.map(n => n.name),
    ...plan.actions.map(a => a.node).filter(name => !plan.nodes.some(n => n.name === name)),
  ];
  return (
    <>
      <p className="lead">{plain(planSentence(plan))}</p>
      <p className="quiet">
        Looked at <Time ms={plan.createdMs} />
      </p>
      {plan.problems.map(p => (
        <div key={`${p.node} ${p.message}`} className={p.severity === 'warn' ? 'card' : 'failed'}>
          <p>
            <strong>
              {{ refuse: 'Refused', hold: 'Left out', warn: 'Warning' }[p.severity]}
              {p.node === null ? '' : ` ${plain(p.node)}`}:
            </strong>{' '}
            {plain(p.message)}
          </p>
          <p>{plain(p.hint)}</p>
        </div>
      ))}
      {plan.summary.destroys.length > 0 ? (
        <div className="danger">
          <p>
            <strong>This destroys</strong>
          </p>
          <ul>
            {plan.summary.destroys.map(d => (
              <li key={d}>{plain(d)}</li>
            ))}
          </ul>
          {names.map(name => (
            <TypeToConfirm
              key={name}
              word={name}
              onMatch={matches => {
                const next = new Set(typed);
                if (matches) next.add(name);
                else next.delete(name);
                setTyped(next);
              }}
            />
          ))}
        </div>
      ) : null}
      {plan.summary.interrupts.length > 0 ? (
        <p>
          <strong>Interrupts</strong> {plain(plan.summary.interrupts.join('; '))}.
        </p>
      ) : null}
      {apply.isError ? <Failed error={apply.error} /> : null}
      <p>
        <Act
          tone={names.length > 0 ? 'danger' : 'main'}
          busy={apply.isPending}
          why={
            plan.actions.length === 0
              ? 'There is nothing to do.'
              : refused
                ? 'The plan is refused: see above.'
                : missing.length > 0
                  ? `Type ${missing.join(', ')} first: data would be destroyed.`
                  : null
          }
          onClick={() => apply.mutate()}
        >
          {`Apply ${count(plan.actions.length, 'action')}`}
        </Act>
      </p>
      {[...new Set(nodes)].map(name => {
        const own = plan.actions.filter(a => a.node === name);
        const node = plan.nodes.find(n => n.name === name);
        if (own.length === 0 && !node?.problem) return null;
        return (
          <section key={name} aria-label={plain(name)}>
            <h2>
              {plain(name)} <small className="quiet">{plain(node?.roles.join(', ') ?? '')}</small>
            </h2>
            {node?.problem ? (
              <p className="tone-bad">
                <span aria-hidden="true">✕ </span>
                {plain(node.problem.message)} {plain(node.problem.hint)}
              </p>
            ) : null}
            {[...new Set(own.map(a => a.service))].map(service => (
              <div key={service}>
                <h3>{plain(service)}</h3>
                <ul className="plan">
                  {own
                    .filter(a => a.service === service)
                    .map(a => (
                      <Line key={a.id} action={a} />
                    ))}
                </ul>
              </div>
            ))}
          </section>
        );
      })}
    </>
  );
}

function Line({ action }: { action: ActionView }) {
  const sign = signOf(action);
  return (
    <li className={`sign-${{ '+': 'add', '~': 'change', '!': 'interrupt', x: 'remove' }[sign]}`}>
      <span className="sign" title={SIGN_WORD[sign]}>
        <span aria-hidden="true">{sign}</span>
        <span className="visually-hidden">{SIGN_WORD[sign]}: </span>
      </span>{' '}
      {plain(action.title)}{' '}
      <span className="quiet">
        {plain(action.reason)}
        {action.interrupts === null ? '' : `; interrupts ${plain(action.interrupts)}`}
        {action.expectedSeconds >= 1 ? `; about ${about(action.expectedSeconds)}` : ''}
      </span>
      {action.destroys === null ? null : <strong className="tone-bad"> destroys {plain(action.destroys)}</strong>}
      {action.diff === undefined ? null : (
        <details>
          <summary>Difference</summary>
          <pre tabIndex={0}>
            {diffLines(action.diff).map((line, i) => (
              // biome-ignore lint/suspicious/noArrayIndexKey: lines of one text never move
              <span key={i} className={`diff-${line.kind}`}>
                {plain(line.text)}
                {'\n'}
              </span>
            ))}
          </pre>
        </details>
      )}
    </li>
  );
}
