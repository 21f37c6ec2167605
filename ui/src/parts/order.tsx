/** Review, order, results: for one node and for thousands. */
import { useMutation } from '@tanstack/react-query';
import { useState } from 'react';
import { api, type ItemResult, type NodeView } from '../api.js';
import { queryClient } from '../queries.js';
import { few, type Order, orderLabel, review, reviewTitle, wordToType } from '../view/bulk.js';
import { plain } from '../view/format.js';
import { Act, Dialog, Failed, TypeToConfirm } from './parts.js';

const give = (order: Order, ids: readonly string[]): Promise<ItemResult[]> =>
  order.kind === 'action'
    ? api.act(ids, order.action, order.params)
    : order.kind === 'power'
      ? api.power(ids, order.action)
      : api.roles(ids, order);

export function OrderDialog({
  nodes,
  order: given,
  onClose,
}: {
  nodes: readonly NodeView[];
  order: Order;
  onClose: () => void;
}) {
  const [order, setOrder] = useState(given);
  const [typed, setTyped] = useState(false);
  // What was reviewed is what is ordered, whatever the feed brings meanwhile; the server refuses what no longer fits.
  const [targets] = useState(nodes);
  const found = review(targets, order);
  const word = wordToType(found);
  const nameOf = new Map(targets.map(n => [n.id, n.name]));
  const work = useMutation({
    mutationFn: (ids: readonly string[]) => give(order, ids),
    onSuccess: () => void queryClient.invalidateQueries({ queryKey: ['nodes'] }),
  });
  const wipe = order.kind === 'action' && (order.action === 'install' || order.action === 'release');

  if (work.data) {
    const failed = work.data.filter(r => !r.ok);
    const done = work.data.length - failed.length;
    return (
      <Dialog
        title={
          failed.length === 0
            ? `${orderLabel(order)}: ordered`
            : `${orderLabel(order)}: ${done} done, ${failed.length} failed`
        }
        onClose={onClose}
      >
        <ul className="results" aria-label="Results">
          {[...failed, ...work.data.filter(r => r.ok)].slice(0, 200).map(r => (
            <li key={r.item} className={r.ok ? 'tone-good' : 'tone-bad'}>
              <span aria-hidden="true">{r.ok ? '●' : '✕'}</span> <strong>{plain(nameOf.get(r.item) ?? r.item)}</strong>{' '}
              {r.ok ? 'done' : plain(`${r.problem?.message ?? 'failed'} ${r.problem?.hint ?? ''}`)}
            </li>
          ))}
        </ul>
        <footer>
          {failed.length > 0 ? (
            <Act onClick={() => work.mutate(failed.map(r => r.item))} busy={work.isPending}>
              Retry the {failed.length} that failed
            </Act>
          ) : null}
          <Act tone="main" onClick={onClose}>
            Close
          </Act>
        </footer>
      </Dialog>
    );
  }
  return (
    <Dialog title={reviewTitle(order, found)} onClose={onClose}>
      {found.can.length > 0 ? <p>{plain(few(found.can, 12))}</p> : null}
      {found.cannot.map(c => (
        <p key={c.reason} className="refusal">
          <span aria-hidden="true">⊘ </span>
          <strong>{plain(few(c.nodes))}</strong>: {plain(c.reason)}
        </p>
      ))}
      {wipe ? (
        <p>
          <label>
            <input
              type="checkbox"
              checked={order.kind === 'action' && order.params.wipe === true}
              onChange={e => {
                setTyped(false);
                if (order.kind === 'action') setOrder({ ...order, params: e.target.checked ? { wipe: true } : {} });
              }}
            />{' '}
            {order.kind === 'action' && order.action === 'install'
              ? 'Foreign data on the chosen disks may go'
              : 'Foreign data on all disks may go'}
          </label>
        </p>
      ) : null}
      {found.destroys.length > 0 ? (
        <div className="danger">
          <p>
            <strong>This destroys</strong>
          </p>
          <ul>
            {found.destroys.slice(0, 50).map(d => (
              <li key={d}>{plain(d)}</li>
            ))}
          </ul>
          {found.destroys.length > 50 ? <p>and {found.destroys.length - 50} more.</p> : null}
        </div>
      ) : null}
      {found.interrupts.length > 0 ? (
        <p>
          Interrupts {plain(found.interrupts.slice(0, 5).join(', '))}
          {found.interrupts.length > 5 ? ' …' : ''}.
        </p>
      ) : null}
      {word === null ? null : <TypeToConfirm key={word} word={word} onMatch={setTyped} />}
      {work.isError ? <Failed error={work.error} /> : null}
      <footer>
        <Act onClick={onClose}>Cancel</Act>
        <Act
          tone={word === null ? 'main' : 'danger'}
          busy={work.isPending}
          why={
            found.can.length === 0
              ? 'None of these nodes can do that now.'
              : word !== null && !typed
                ? `Type ${word} first: data would be destroyed.`
                : null
          }
          onClick={() => work.mutate(found.can.map(n => n.id))}
        >
          {`${orderLabel(order)} ${found.can.length}`}
        </Act>
      </footer>
    </Dialog>
  );
}
