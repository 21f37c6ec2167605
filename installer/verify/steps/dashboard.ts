/** Horizon: its login page, and a login as a browser does it. */
import { asProblem } from '../../../provisioner/core/problem.js';
import { broken, made, type VerifyContext } from '../context.js';
import { passed, type Step, skipped } from '../runner.js';

/** Name and value of the form's fields, as a browser would send them without touching them. Pure. */
export function formFields(html: string): Record<string, string> {
  const fields: Record<string, string> = {};
  const attribute = (tag: string, name: string) =>
    new RegExp(`\\b${name}\\s*=\\s*(?:"([^"]*)"|'([^']*)')`, 'i')
      .exec(tag)
      ?.slice(1)
      .find(v => v !== undefined);
  const forms = [...html.matchAll(/<form\b[\s\S]*?<\/form>/gi)].map(m => m[0]);
  const withToken = forms.filter(f => f.includes('csrfmiddlewaretoken'));
  const form = withToken.find(f => /name\s*=\s*["']password["']/i.test(f)) ?? withToken[0] ?? html;
  for (const [tag] of form.matchAll(/<input\b[^>]*>/gi)) {
    const name = attribute(tag, 'name');
    if (name && !/^(submit|button)$/i.test(attribute(tag, 'type') ?? '')) fields[name] = attribute(tag, 'value') ?? '';
  }
  for (const [, open, inner] of form.matchAll(/<select\b([^>]*)>([\s\S]*?)<\/select>/gi)) {
    const name = attribute(open!, 'name');
    const options = [...inner!.matchAll(/<option\b([^>]*)>/gi)].map(m => m[1]!);
    const chosen = options.find(o => /\bselected\b/i.test(o)) ?? options[0];
    if (name && chosen) fields[name] = attribute(chosen, 'value') ?? '';
  }
  return Object.fromEntries(
    Object.entries(fields).map(([k, v]) => [
      k,
      v.replaceAll('&amp;', '&').replaceAll('&quot;', '"').replaceAll('&#x27;', "'"),
    ]),
  );
}

/** Takes over what a reply sets. Pure but for the jar. */
export function keepCookies(jar: Map<string, string>, setCookie: string | undefined): void {
  for (const line of setCookie?.split('\n') ?? []) {
    const [pair = ''] = line.split(';');
    const i = pair.indexOf('=');
    if (i > 0) jar.set(pair.slice(0, i).trim(), pair.slice(i + 1).trim());
  }
}

const LOGIN_MS = 60_000;

export const dashboard: Step<VerifyContext> = {
  name: 'dashboard',
  title: 'The dashboard shows its login page, and takes a login',
  needs: ['identity'],
  expectedSeconds: 6,
  timeoutSeconds: 180,
  hint: 'Look at apache’s error log on the controller; OPENSTACK_KEYSTONE_URL and the cache (memcached) of Horizon’s settings must be reachable from it.',
  run: async (context, control) => {
    const { spec, admin } = context;
    if (!spec.dashboardUrl) return skipped('The cloud has no dashboard.');
    const base = spec.dashboardUrl.replace(/\/+$/, '');
    const { userName, password } = made(context, 'project');
    const jar = new Map<string, string>();
    const { origin } = new URL(base);
    const send = async (method: string, url: string, body?: string, referer?: string) => {
      const cookie = [...jar].map(([k, v]) => `${k}=${v}`).join('; ');
      const reply = await admin.http.send({
        method,
        url,
        headers: {
          accept: 'text/html',
          ...(cookie ? { cookie } : {}),
          ...(body === undefined ? {} : { 'content-type': 'application/x-www-form-urlencoded' }),
          // Django checks it on HTTPS.
          ...(referer ? { referer, origin } : {}),
        },
        ...(body === undefined ? {} : { body }),
        timeoutMs: LOGIN_MS,
        signal: control.signal,
      });
      keepCookies(jar, reply.headers['set-cookie']);
      return reply;
    };
    /** Follows redirects within the dashboard only: cookies go along. */
    const open = async (url: string) => {
      let now = url;
      for (let hops = 0; hops < 6; hops++) {
        const reply = await send('GET', now);
        const location = reply.headers['location'];
        if (reply.status < 300 || reply.status >= 400 || !location) return { reply, url: now };
        const next = new URL(location, now);
        if (next.origin !== origin) return broken(`The dashboard sends its visitors on to ${next.origin}.`);
        now = next.href;
      }
      return broken('The dashboard sends its visitors in circles.');
    };
    control.waitingFor('the login page');
    const loginUrl = `${base}/auth/login/`;
    const page = await send('GET', loginUrl);
    const html = page.bytes.toString('utf8');
    if (page.status !== 200) broken(`The dashboard's login page ${loginUrl} answers ${page.status}.`);
    const fields = formFields(html);
    if (!fields['csrfmiddlewaretoken']) broken(`${loginUrl} answers, but not with Horizon's login form.`);
    control.waitingFor('the login');
    const form = new URLSearchParams({ ...fields, username: userName, password });
    if ('domain' in fields) form.set('domain', fields['domain'] || 'Default');
    const answer = await send('POST', loginUrl, form.toString(), loginUrl);
    if (answer.status !== 302) {
      const shown = /<div[^>]*class="[^"]*(?:alert|error)[^"]*"[^>]*>([\s\S]*?)<\/div>/i.exec(
        answer.bytes.toString('utf8'),
      )?.[1];
      broken(
        `The dashboard did not take the login of a plain user (${answer.status})${
          shown
            ? `: ${shown
                .replace(/<[^>]*>/g, ' ')
                .replace(/\s+/g, ' ')
                .trim()
                .slice(0, 200)}`
            : ''
        }.`,
      );
    }
    control.waitingFor('the first page after the login');
    const home = await open(new URL(answer.headers['location'] ?? `${base}/`, loginUrl).href);
    if (home.reply.status !== 200) broken(`After the login, ${home.url} answers ${home.reply.status}.`);
    if (/\/auth\/login/.test(home.url))
      broken(
        'The dashboard forgot the login at once: its session cache does not keep it.',
        'Is memcached up, and reached from the dashboard?',
      );
    const title = /<title>\s*([^<]*?)\s*<\/title>/i.exec(home.reply.bytes.toString('utf8'))?.[1] ?? '';
    // Styles that were not collected leave a page that nobody can use.
    const style = /<link\b[^>]*href="([^"]+\.css[^"]*)"/i.exec(html)?.[1];
    if (!style) return broken(`The login page ${loginUrl} names no style sheet.`);
    const url = new URL(style.replaceAll('&amp;', '&'), loginUrl).href;
    const css = await send('GET', url).catch((error: unknown) => broken(asProblem(error).message));
    if (css.status !== 200) broken(`The dashboard's style sheet answers ${css.status}: ${url}`);
    return passed({ page: loginUrl, title: title.replace(/\s+/g, ' ').slice(0, 80) });
  },
};
