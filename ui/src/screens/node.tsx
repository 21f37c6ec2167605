/** One node: why it is where it is, what happened, what it is made of, and what can be ordered. */
import { useQuery } from '@tanstack/react-query';
import { useParams } from '@tanstack/react-router';
import { type ReactNode, useEffect, useRef, useState } from 'react';
import { reachedAt } from '../../../provisioner/node/filter.js';
import { NODE_ACTIONS } from '../../../provisioner/node/lifecycle.js';
import type { NodeView, Why } from '../api.js';
import { OrderDialog } from '../parts/order.js';
import { Act, Copyable, Empty, Failed, Loading, Page, Since, Status, Time } from '../parts/parts.js';
import { RolesDialog } from '../parts/roles.js';
import { whyQuery } from '../queries.js';
import { type Order, orderLabel, review } from '../view/bulk.js';
import { diskSize, memory, plain, span } from '../view/format.js';
import { type Moment, timeline } from '../view/timeline.js';

const POWER = ['on', 'off', 'cycle'] as const;
const ORDERS: readonly Order[] = [
  ...NODE_ACTIONS.map((action): Order => ({ kind: 'action', action, params: {} })),
  ...POWER.map((action): Order => ({ kind: 'power', action })),
];

export function NodePage() {
  const { node: id } = useParams({ from: '/nodes/$node' });
  const why = useQuery(whyQuery(id));
  if (why.isPending)
    return (
      <Page title="Node">
        <Loading what="the node" />
      </Page>
    );
  if (!why.data)
    return (
      <Page title="Node">
        <Failed error={why.error} again={() => void why.refetch()} />
      </Page>
    );
  return <Shown why={why.data} />;
}

function Shown({ why }: { why: Why }) {
  const { node } = why;
  const [open, setOpen] = useState<Order | 'roles' | null>(null);
  const first = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.key !== '.' || document.querySelector('dialog[open]')) return;
      if (event.target instanceof HTMLElement && event.target.closest('input, select, textarea')) return;
      first.current?.querySelector('button')?.focus();
    };
    window.addEventListener('keydown', onKey);
    return () => window.removeEventListener('keydown', onKey);
  }, []);
  const offered = ORDERS.map(order => ({ order, why: review([node], order).cannot[0]?.reason ?? null }));
  const possible = offered.filter(o => o.why === null);
  const not = offered.filter(o => o.why !== null);
  return (
    <Page title={node.name}>
      <p className="lead">
        <Status node={node} />
      </p>
      <p>
        <strong>Next:</strong> {plain(why.next)}
      </p>
      <div className="bar" ref={first} role="group" aria-label="Actions">
        {possible.map(({ order }, i) => (
          <Act
            key={orderLabel(order)}
            tone={i === 0 && order.kind === 'action' ? 'main' : 'plain'}
            onClick={() => setOpen(order)}
          >
            {orderLabel(order)}
          </Act>
        ))}
        <Act onClick={() => setOpen('roles')}>Roles …</Act>
      </div>
      <details>
        <summary>{not.length} actions are not possible now</summary>
        <ul className="plain">
          {not.map(o => (
            <li key={orderLabel(o.order)}>
              <strong>{orderLabel(o.order)}</strong>: {o.why}
            </li>
          ))}
        </ul>
      </details>
      <div className="columns wide-first">
        <section aria-labelledby="timeline">
          <h2 id="timeline">What happened</h2>
          <Timeline moments={timeline(why)} />
        </section>
        <div>
          <Facts node={node} />
          <Hardware node={node} />
        </div>
      </div>
      {open === 'roles' ? <RolesDialog nodes={[node]} onClose={() => setOpen(null)} /> : null}
      {open !== null && typeof open === 'object' ? (
        <OrderDialog nodes={[node]} order={open} onClose={() => setOpen(null)} />
      ) : null}
    </Page>
  );
}

const KINDS = ['state', 'packet', 'step', 'event'] as const;
const KIND_TITLE = { state: 'States', packet: 'Packets and fetches', step: 'Steps', event: 'Events' } as const;

function Timeline({ moments }: { moments: readonly Moment[] }) {
  const [off, setOff] = useState<ReadonlySet<Moment['kind']>>(new Set());
  const shown = moments.filter(m => !off.has(m.kind));
  return (
    <>
      <div className="bar" role="group" aria-label="What is shown">
        {KINDS.map(kind => (
          <label key={kind}>
            <input
              type="checkbox"
              checked={!off.has(kind)}
              onChange={() => {
                const next = new Set(off);
                if (!next.delete(kind)) next.add(kind);
                setOff(next);
              }}
            />{' '}
            {KIND_TITLE[kind]}
          </label>
        ))}
      </div>
      {shown.length === 0 ? <Empty title="Nothing happened yet." /> : null}
      <ol className="timeline">
        {shown.map(m => (
          <li key={m.key} className={m.tone === 'bad' ? 'tone-bad' : undefined}>
            <Time ms={m.atMs} /> <span className="kind">{m.kind}</span>{' '}
            <span className="said">
              {m.tone === 'bad' ? <span aria-hidden="true">✕ </span> : null}
              {plain(m.text)}
              {m.tookMs === null ? '' : ` (${span(m.tookMs)})`}
            </span>
          </li>
        ))}
      </ol>
    </>
  );
}

const Fact = ({ name, children }: { name: string; children: ReactNode }) => (
  <div>
    <dt>{name}</dt>
    <dd>{children}</dd>
  </div>
);

function Facts({ node }: { node: NodeView }) {
  const { spec, status } = node;
  return (
    <section aria-labelledby="facts">
      <h2 id="facts">Identity and roles</h2>
      <dl className="facts">
        <Fact name="Address">
          <Copyable text={reachedAt(node)} />
        </Fact>
        <Fact name="MACs">
          {node.macs.map(mac => (
            <Copyable key={mac} text={mac} />
          ))}
        </Fact>
        <Fact name="Serial">
          <Copyable text={node.serial} />
        </Fact>
        <Fact name="UUID">
          <Copyable text={node.uuid} />
        </Fact>
        <Fact name="Comes from">{node.source}</Fact>
        <Fact name="In this state for">
          <Since ms={node.stateSinceMs} />
        </Fact>
        <Fact name="Power">{status.power?.state ?? 'not asked yet'}</Fact>
        <Fact name="BMC">{spec.bmc === null ? 'none' : plain(`${spec.bmc.driver} ${spec.bmc.address ?? ''}`)}</Fact>
        <Fact name="Image">{plain(status.os?.image ?? spec.install.image ?? '–')}</Fact>
        <Fact name="Rack">{spec.rack ? plain(`${spec.rack.name} ${spec.rack.unit ?? ''}`) : '–'}</Fact>
        <Fact name="Roles">{plain(spec.roles.join(', ')) || 'none'}</Fact>
        {status.warnings.length > 0 ? <Fact name="Warnings">{plain(status.warnings.join(' '))}</Fact> : null}
      </dl>
    </section>
  );
}

function Hardware({ node }: { node: NodeView }) {
  const { inventory } = node.status;
  if (!inventory)
    return (
      <section aria-labelledby="hardware">
        <h2 id="hardware">Hardware</h2>
        <Empty title="Not inspected yet.">
          <p>Its hardware is read when it boots from the network.</p>
        </Empty>
      </section>
    );
  const { system, cpu, memory: ram, disks, nics, firmware } = inventory;
  return (
    <>
      <section aria-labelledby="hardware">
        <h2 id="hardware">Hardware</h2>
        <dl className="facts">
          <Fact name="Model">{plain([system.manufacturer, system.product].filter(Boolean).join(' ')) || '–'}</Fact>
          <Fact name="Processor">
            {plain(cpu.model ?? cpu.arch)}, {cpu.cores} cores, {cpu.threads} threads
          </Fact>
          <Fact name="Memory">{memory(ram.totalBytes)}</Fact>
          <Fact name="Firmware">
            {plain([firmware.type, firmware.vendor, firmware.version].filter(Boolean).join(' '))}
          </Fact>
        </dl>
      </section>
      <section aria-labelledby="disks">
        <h2 id="disks">Disks</h2>
        <div className="scroll" tabIndex={0} role="region" aria-label="Table of disks">
          <table>
            <thead>
              <tr>
                <th scope="col">Disk</th>
                <th scope="col">Size</th>
                <th scope="col">Model</th>
                <th scope="col">On it</th>
              </tr>
            </thead>
            <tbody>
              {disks.map(d => (
                <tr key={d.path}>
                  <th scope="row">{plain(d.path)}</th>
                  <td>
                    {diskSize(d.sizeBytes)} {d.type}
                  </td>
                  <td>{plain(d.model ?? '–')}</td>
                  <td>
                    {d.smart === 'failed' ? <span className="tone-bad">✕ SMART failed. </span> : null}
                    {d.ownedBy ? 'our installation' : plain(d.signatures.map(s => s.type).join(', ')) || 'blank'}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </section>
      <section aria-labelledby="network">
        <h2 id="network">Network</h2>
        <div className="scroll" tabIndex={0} role="region" aria-label="Table of interfaces">
          <table>
            <thead>
              <tr>
                <th scope="col">Interface</th>
                <th scope="col">MAC</th>
                <th scope="col">Link</th>
                <th scope="col">Switch</th>
              </tr>
            </thead>
            <tbody>
              {nics.map(n => (
                <tr key={n.mac}>
                  <th scope="row">{plain(n.name)}</th>
                  <td>
                    <Copyable text={n.mac} />
                  </td>
                  <td>{n.carrier ? (n.speedMbps === null ? 'up' : `up, ${n.speedMbps} Mb/s`) : 'down'}</td>
                  <td>{n.lldp ? plain([n.lldp.system, n.lldp.port].filter(Boolean).join(' ')) : '–'}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </section>
    </>
  );
}
