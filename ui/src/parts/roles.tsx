/** Roles for one node or several: what to give, what to take, with the sentences of the catalogue. */
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import type { NodeView } from '../api.js';
import { catalogueQuery } from '../queries.js';
import { plain } from '../view/format.js';
import { OrderDialog } from './order.js';
import { Act, Dialog, Failed, Loading } from './parts.js';

export function RolesDialog({ nodes, onClose }: { nodes: readonly NodeView[]; onClose: () => void }) {
  const catalogue = useQuery(catalogueQuery);
  const [targets] = useState(nodes);
  const [add, setAdd] = useState<string[]>([]);
  const [remove, setRemove] = useState<string[]>([]);
  const [reviewing, setReviewing] = useState(false);
  if (reviewing) return <OrderDialog nodes={targets} order={{ kind: 'roles', add, remove }} onClose={onClose} />;
  const have = (role: string) => targets.filter(n => n.spec.roles.includes(role)).length;
  const known = catalogue.data?.roles ?? [];
  const change = (role: string, to: string) => {
    setAdd(to === 'give' ? [...add, role] : add.filter(r => r !== role));
    setRemove(to === 'take' ? [...remove, role] : remove.filter(r => r !== role));
  };
  return (
    <Dialog
      title={`Roles of ${targets.length === 1 ? plain(targets[0]!.name) : `${targets.length} nodes`}`}
      onClose={onClose}
    >
      {catalogue.isPending ? <Loading what="the roles" /> : null}
      {catalogue.isError ? <Failed error={catalogue.error} again={() => void catalogue.refetch()} /> : null}
      {known.length > 0 ? (
        <div className="scroll" tabIndex={0} role="region" aria-label="Roles">
          <table>
            <thead>
              <tr>
                <th scope="col">Role</th>
                <th scope="col">Have it</th>
                <th scope="col">Change</th>
              </tr>
            </thead>
            <tbody>
              {known.map(role => (
                <tr key={role.name}>
                  <th scope="row">
                    {role.title}
                    <div className="quiet">{[role.sentence, ...role.limits.map(l => l.sentence)].join(' ')}</div>
                  </th>
                  <td>
                    {have(role.name)} of {targets.length}
                  </td>
                  <td>
                    <select
                      aria-label={`Change of ${role.title}`}
                      value={add.includes(role.name) ? 'give' : remove.includes(role.name) ? 'take' : 'leave'}
                      onChange={e => change(role.name, e.target.value)}
                    >
                      <option value="leave">leave</option>
                      <option value="give">give</option>
                      <option value="take">take</option>
                    </select>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : null}
      <footer>
        <Act onClick={onClose}>Cancel</Act>
        <Act
          tone="main"
          why={add.length + remove.length === 0 ? 'No role is given or taken yet.' : null}
          onClick={() => setReviewing(true)}
        >
          Review
        </Act>
      </footer>
    </Dialog>
  );
}
