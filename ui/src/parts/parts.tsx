/** Small things that every screen is made of. */
import { type ReactNode, useEffect, useId, useRef, useState } from 'react';
import { asProblem, type NodeView } from '../api.js';
import { GLYPH, toneOf } from '../view/fleet.js';
import { plain, span } from '../view/format.js';

/** What a node does and waits for: the server's sentence, everywhere the same. */
export function Status({ node, short = false }: { node: NodeView; short?: boolean }) {
  const tone = toneOf(node);
  return (
    <span className={`status tone-${tone}`} title={short ? plain(node.sentence) : undefined}>
      <span className="glyph" aria-hidden="true">
        {GLYPH[tone]}
      </span>{' '}
      <span className="sentence">{plain(node.sentence)}</span>
    </span>
  );
}

/** A time of this place; the exact one in UTC on hover. */
export function Time({ ms, date = false }: { ms: number; date?: boolean }) {
  const at = new Date(ms);
  return (
    <time dateTime={at.toISOString()} title={`${at.toISOString()} (UTC)`}>
      {date ? at.toLocaleString() : at.toLocaleTimeString()}
    </time>
  );
}

/** For how long something has been so; it moves by itself. */
export function Since({ ms }: { ms: number }) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 5000);
    return () => clearInterval(timer);
  }, []);
  return <span title={new Date(ms).toISOString()}>{span(now - ms)}</span>;
}

/** MACs, serials and addresses are there to be pasted elsewhere. */
export function Copyable({ text }: { text: string | null | undefined }) {
  const [done, setDone] = useState(false);
  if (!text) return <span className="quiet">–</span>;
  return (
    <button
      type="button"
      className="copy"
      title={done ? 'Copied' : 'Copy'}
      aria-label={`Copy ${plain(text)}`}
      onClick={() => {
        navigator.clipboard.writeText(text).then(
          () => setDone(true),
          () => setDone(false),
        );
      }}
    >
      <code>{plain(text)}</code>
      {done ? <span aria-hidden="true"> ✓</span> : null}
    </button>
  );
}

export interface ActProps {
  readonly children: ReactNode;
  readonly onClick: () => void;
  /** Why it cannot be done now; null: it can. */
  readonly why?: string | null;
  readonly tone?: 'plain' | 'main' | 'danger';
  readonly busy?: boolean;
}

/** A button that, where it does nothing, says why. It stays reachable by keyboard for that. */
export function Act({ children, onClick, why = null, tone = 'plain', busy = false }: ActProps) {
  const id = useId();
  const off = why !== null || busy;
  return (
    <>
      <button
        type="button"
        className={`act act-${tone}`}
        aria-disabled={off}
        aria-describedby={why === null ? undefined : id}
        title={why ?? undefined}
        onClick={() => {
          if (!off) onClick();
        }}
      >
        {busy ? '… ' : ''}
        {children}
      </button>
      {why === null ? null : (
        <span id={id} className="visually-hidden">
          {why}
        </span>
      )}
    </>
  );
}

export const Loading = ({ what }: { what: string }) => (
  <p className="note" aria-busy="true">
    <span className="spin" aria-hidden="true">
      ◐
    </span>{' '}
    Reading {what} …
  </p>
);

export const Empty = ({ title, children }: { title: string; children?: ReactNode }) => (
  <div className="empty">
    <p className="empty-title">{title}</p>
    {children}
  </div>
);

/** A failure: what, why, and the next action. */
export function Failed({ error, again }: { error: unknown; again?: () => void }) {
  const { message, hint } = asProblem(error);
  return (
    <div className="failed" role="alert">
      <p>
        <span aria-hidden="true">✕ </span>
        <strong>{plain(message)}</strong>
      </p>
      <p>{plain(hint)}</p>
      {again ? <Act onClick={again}>Try again</Act> : null}
    </div>
  );
}

/** A window over the page: the browser keeps the focus inside, and Escape closes it. */
export function Dialog({ title, onClose, children }: { title: string; onClose: () => void; children: ReactNode }) {
  const ref = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const dialog = ref.current;
    dialog?.showModal();
    // A dialog that opens puts the focus on its first control: the one that closes it.
    dialog?.querySelector<HTMLElement>('[data-first]')?.focus();
    return () => dialog?.close();
  }, []);
  return (
    <dialog
      ref={ref}
      aria-labelledby={id}
      onCancel={event => {
        event.preventDefault();
        onClose();
      }}
    >
      <header>
        <h2 id={id}>{title}</h2>
        <button type="button" className="close" aria-label="Close" onClick={onClose}>
          ✕
        </button>
      </header>
      {children}
    </dialog>
  );
}

/** A field that must hold exactly `word` before data may die. */
export function TypeToConfirm({ word, onMatch }: { word: string; onMatch: (matches: boolean) => void }) {
  const id = useId();
  return (
    <p className="confirm">
      <label htmlFor={id}>
        Type <kbd>{plain(word)}</kbd> to confirm
      </label>
      <input id={id} autoComplete="off" spellCheck={false} onChange={e => onMatch(e.target.value === word)} />
    </p>
  );
}

export const Page = ({ title, aside, children }: { title: string; aside?: ReactNode; children: ReactNode }) => {
  useEffect(() => {
    document.title = `${plain(title)} · Halligan`;
  }, [title]);
  return (
    <>
      <div className="page-head">
        <h1>{plain(title)}</h1>
        {aside}
      </div>
      {children}
    </>
  );
};
