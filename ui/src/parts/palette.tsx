/** Ctrl K: pages and nodes by name, MAC, serial or address, whatever was pasted. */
import { useQuery } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';
import { useState } from 'react';
import { PLACES } from '../places.js';
import { nodesQuery } from '../queries.js';
import { plain } from '../view/format.js';
import { hitsOf } from '../view/palette.js';
import { Dialog } from './parts.js';

export function Palette({ onClose }: { onClose: () => void }) {
  const navigate = useNavigate();
  const { data: nodes = [] } = useQuery(nodesQuery);
  const [text, setText] = useState('');
  const [chosen, setChosen] = useState(0);
  const hits = hitsOf(text, PLACES, nodes);
  const at = Math.min(chosen, hits.length - 1);
  const go = (index: number) => {
    const hit = hits[index];
    if (!hit) return;
    onClose();
    if (hit.kind === 'page') void navigate({ to: hit.to });
    else void navigate({ to: '/nodes/$node', params: { node: hit.id } });
  };
  return (
    <Dialog title="Go to" onClose={onClose}>
      <input
        data-first
        role="combobox"
        aria-label="A page, or a node by name, MAC, serial or address"
        aria-expanded="true"
        aria-controls="palette-hits"
        aria-activedescendant={hits[at] ? `palette-${at}` : undefined}
        value={text}
        onChange={e => {
          setText(e.target.value);
          setChosen(0);
        }}
        onKeyDown={e => {
          if (e.key === 'ArrowDown') setChosen(Math.min(at + 1, hits.length - 1));
          else if (e.key === 'ArrowUp') setChosen(Math.max(at - 1, 0));
          else if (e.key === 'Enter') go(at);
          else return;
          e.preventDefault();
        }}
      />
      <div id="palette-hits" role="listbox" aria-label="Hits" className="hits">
        {hits.map((hit, i) => (
          <div
            key={hit.kind === 'page' ? hit.to : hit.id}
            id={`palette-${i}`}
            role="option"
            tabIndex={-1}
            aria-selected={i === at}
            onClick={() => go(i)}
            onKeyDown={e => e.key === 'Enter' && go(i)}
          >
            {plain(hit.title)} <span className="quiet">{plain(hit.note)}</span>
          </div>
        ))}
      </div>
      {hits.length === 0 ? <p className="quiet">Nothing is called so.</p> : null}
    </Dialog>
  );
}
