/** The frame of every page: where to go, how live it is, the palette and the keys. */
import { Link, Outlet, useNavigate } from '@tanstack/react-router';
import { useEffect, useState } from 'react';
import { LiveIndicator } from './live/context.js';
import { Palette } from './parts/palette.js';
import { Dialog } from './parts/parts.js';
import { PLACES } from './places.js';

const KEYS: readonly (readonly [string, string])[] = [
  ['Ctrl K', 'palette: go to a page, a node, a MAC, a serial, an address'],
  ['/', 'filter'],
  ['j k', 'move in a list'],
  ['x', 'select'],
  ['Enter', 'open'],
  ['.', 'actions'],
  ...PLACES.map(p => [`g ${p.key}`, p.title] as const),
  ['?', 'this list'],
];

const isTyping = (target: EventTarget | null) =>
  target instanceof HTMLElement && (/^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) || target.isContentEditable);
/** How long after `g` the second key counts. */
const CHORD_MS = 1500;

type Theme = 'light' | 'dark' | 'system';
const THEMES: readonly Theme[] = ['system', 'light', 'dark'];

function useTheme(): [Theme, (theme: Theme) => void] {
  const [theme, setTheme] = useState<Theme>(() => {
    const kept = localStorage.getItem('theme');
    return kept === 'light' || kept === 'dark' ? kept : 'system';
  });
  useEffect(() => {
    localStorage.setItem('theme', theme);
    document.documentElement.dataset['theme'] = theme;
  }, [theme]);
  return [theme, setTheme];
}

export function Shell() {
  const navigate = useNavigate();
  const [open, setOpen] = useState<'palette' | 'keys' | null>(null);
  const [theme, setTheme] = useTheme();
  useEffect(() => {
    let chordAt = Number.NEGATIVE_INFINITY;
    const onKey = (event: KeyboardEvent) => {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'k') {
        event.preventDefault();
        setOpen('palette');
        return;
      }
      if (
        event.ctrlKey ||
        event.metaKey ||
        event.altKey ||
        isTyping(event.target) ||
        document.querySelector('dialog[open]')
      )
        return;
      if (performance.now() - chordAt < CHORD_MS) {
        chordAt = Number.NEGATIVE_INFINITY;
        const place = PLACES.find(p => p.key === event.key);
        if (place) {
          event.preventDefault();
          event.stopImmediatePropagation();
          void navigate({ to: place.to });
        }
        return;
      }
      if (event.key === 'g') chordAt = performance.now();
      else if (event.key === '?') setOpen('keys');
      else if (event.key === '/') {
        const field = document.querySelector<HTMLInputElement>('input[type="search"]');
        if (field) {
          event.preventDefault();
          field.focus();
          field.select();
        }
      }
    };
    window.addEventListener('keydown', onKey);
    return () => window.removeEventListener('keydown', onKey);
  }, [navigate]);

  return (
    <>
      <a className="skip" href="#main">
        To the content
      </a>
      <header className="top">
        <nav aria-label="Pages">
          <ul>
            {PLACES.map(p => (
              <li key={p.to}>
                <Link
                  to={p.to}
                  activeOptions={{ exact: p.to === '/', includeSearch: false }}
                  activeProps={{ 'aria-current': 'page' }}
                >
                  {p.title}
                </Link>
              </li>
            ))}
          </ul>
        </nav>
        <div className="top-right">
          <LiveIndicator />
          <button type="button" onClick={() => setOpen('palette')} title="Ctrl K">
            Go to …
          </button>
          <label className="theme">
            <span className="visually-hidden">Theme</span>
            <select value={theme} onChange={e => setTheme(e.target.value as Theme)}>
              {THEMES.map(t => (
                <option key={t} value={t}>
                  {t}
                </option>
              ))}
            </select>
          </label>
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        <Outlet />
      </main>
      {open === 'palette' ? <Palette onClose={() => setOpen(null)} /> : null}
      {open === 'keys' ? (
        <Dialog title="Keys" onClose={() => setOpen(null)}>
          <dl className="facts">
            {KEYS.map(([keys, what]) => (
              <div key={keys}>
                <dt>
                  <kbd>{keys}</kbd>
                </dt>
                <dd>{what}</dd>
              </div>
            ))}
          </dl>
        </Dialog>
      ) : null}
    </>
  );
}
