/** The cloud: does it work (the proof), what it is made of, and how to log in. */
import { useMutation, useQuery } from '@tanstack/react-query';
import { verifySentence } from '../../../provisioner/core/cloud-words.js';
import { api, asProblem, type VerifyReport } from '../api.js';
import { Act, Empty, Failed, Loading, Page, Time } from '../parts/parts.js';
import { Progress, useRunEvents } from '../parts/progress.js';
import { catalogueQuery, nodesQuery, queryClient, runsQuery, verificationQuery } from '../queries.js';
import { few } from '../view/bulk.js';
import { plain } from '../view/format.js';

export function Cloud() {
  const report = useQuery(verificationQuery);
  const runs = useQuery(runsQuery);
  const events = useRunEvents();
  const running = runs.data?.find(r => r.state === 'running' && r.kind.startsWith('cloud-'));
  const missing = report.isError && asProblem(report.error).code === 'cloud-missing';
  const again = () => void queryClient.invalidateQueries({ queryKey: ['runs'] });
  const verify = useMutation({ mutationFn: api.verify, onSuccess: again });
  const security = useMutation({ mutationFn: api.security, onSuccess: again });
  const why = missing
    ? 'This site has no cloud.'
    : running
      ? `A run of the kind ${running.kind} is under way; wait for its end.`
      : null;
  return (
    <Page
      title="Cloud"
      aside={
        <span className="bar">
          <Act tone="main" why={why} busy={verify.isPending} onClick={() => verify.mutate()}>
            Prove it
          </Act>
          <Act why={why} busy={security.isPending} onClick={() => security.mutate()}>
            Check its security
          </Act>
        </span>
      }
    >
      {verify.isError ? <Failed error={verify.error} /> : null}
      {security.isError ? <Failed error={security.error} /> : null}
      {running ? <Progress events={events} runId={running.id} /> : null}
      <section aria-labelledby="proof">
        <h2 id="proof">Proof</h2>
        {report.isPending ? <Loading what="the newest proof" /> : null}
        {missing ? (
          <Empty title="This site has no cloud.">
            <p>Add a `cloud` part to the site file, and start the server again.</p>
          </Empty>
        ) : report.isError ? (
          <Failed error={report.error} again={() => void report.refetch()} />
        ) : null}
        {report.data === null ? (
          <Empty title="It was never proved.">
            <p>The proof boots a virtual machine, reaches it, and attaches a volume to it.</p>
          </Empty>
        ) : null}
        {report.data ? <Report report={report.data} /> : null}
      </section>
      <Services />
      <section aria-labelledby="login">
        <h2 id="login">Log in</h2>
        <p>
          The administrator's password is never sent over TCP. On the server's own machine, as root:{' '}
          <code>halligan cloud credentials</code>.
        </p>
      </section>
    </Page>
  );
}

const STATE = {
  passed: { glyph: '●', tone: 'good' },
  failed: { glyph: '✕', tone: 'bad' },
  skipped: { glyph: '–', tone: 'wait' },
} as const;

const Report = ({ report }: { report: VerifyReport }) => (
  <>
    <p className={report.ok ? 'tone-good' : 'tone-bad'}>
      <span aria-hidden="true">{report.ok ? '● ' : '✕ '}</span>
      {plain(verifySentence(report))} <Time ms={report.startedMs} date />
    </p>
    <ul className="results">
      {report.steps.map(s => (
        <li key={s.name} className={`tone-${STATE[s.state].tone}`}>
          <span aria-hidden="true">{STATE[s.state].glyph}</span> <span className="visually-hidden">{s.state}: </span>
          {plain(s.title)} <span className="quiet">{s.seconds.toFixed(1)} s</span>
          {s.message ? <div>{plain(`${s.message} ${s.hint ?? ''}`)}</div> : null}
        </li>
      ))}
    </ul>
  </>
);

/** Services of the catalogue, and which nodes carry each by their roles. */
function Services() {
  const catalogue = useQuery(catalogueQuery);
  const nodes = useQuery(nodesQuery);
  return (
    <section aria-labelledby="services">
      <h2 id="services">Services</h2>
      {catalogue.isPending ? <Loading what="the services" /> : null}
      {catalogue.isError ? <Failed error={catalogue.error} again={() => void catalogue.refetch()} /> : null}
      {catalogue.data ? (
        <div className="scroll" tabIndex={0} role="region" aria-label="Table of services">
          <table>
            <thead>
              <tr>
                <th scope="col">Service</th>
                <th scope="col">On</th>
              </tr>
            </thead>
            <tbody>
              {catalogue.data.services.map(s => {
                const roles = catalogue.data.roles.filter(r => r.services.includes(s.name)).map(r => r.name);
                const on = nodes.data?.filter(n => n.spec.roles.some(r => roles.includes(r))) ?? [];
                return (
                  <tr key={s.name}>
                    <th scope="row">
                      {s.title}
                      <div className="quiet">{s.sentence}</div>
                    </th>
                    <td>{on.length > 0 ? plain(few(on)) : '–'}</td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </div>
      ) : null}
    </section>
  );
}
