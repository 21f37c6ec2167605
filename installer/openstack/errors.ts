/** What an API says about a failure, made fit to be shown: short, one line, no markup, none of our secrets. */
import { asProblem, ProblemError } from '../../provisioner/core/problem.js';
import { at, isObject, items, maybeText } from './json.js';

const MESSAGE_MAX = 400;

/** The message in the forms that the services use: {error: {message}}, {badRequest: {message}}, {NeutronError: …}, {errors: [{detail}]}. */
function messageOf(body: unknown): string | undefined {
  if (!isObject(body)) return undefined;
  const first = items(body, 'errors')[0];
  const direct = maybeText(first, 'detail') ?? maybeText(first, 'title') ?? maybeText(body, 'message');
  if (direct !== undefined) return direct;
  for (const value of Object.values(body)) {
    const inner = at(value, 'message') ?? at(value, 'faultstring');
    if (typeof inner === 'string') return inner;
    if (typeof value === 'string' && value.length > 3) return value;
  }
  return undefined;
}

/** An HTML page as its text: what stands in its body, or its title. */
function pageText(page: string): string {
  const bounded = page.slice(0, 20_000).replace(/<(script|style)\b[\s\S]*?<\/\1\s*>/gi, ' ');
  const body = /<body\b[^>]*>([\s\S]*)/i.exec(bounded)?.[1] ?? bounded;
  return body
    .replace(/<[^<>]*>/g, ' ')
    .replace(/&(?:quot|#34);/g, '"')
    .replace(/&(?:#39|#x27|apos);/g, "'")
    .replace(/&amp;/g, '&')
    .replace(/[<>]/g, ' ');
}

/** The service's own words. `secrets` are taken out, should it echo what we sent. */
export function apiMessage(bytes: Buffer, secrets: readonly string[] = []): string {
  const raw = bytes.subarray(0, 200_000).toString('utf8');
  let said: string | undefined;
  try {
    said = messageOf(JSON.parse(raw));
  } catch {
    // No JSON: a proxy's page or Glance's HTML.
  }
  let words = said === undefined || /<\w/.test(said) ? pageText(said ?? raw) : said;
  for (const secret of secrets) if (secret.length >= 4) words = words.replaceAll(secret, '…');
  words = words
    // Control characters would reach a terminal.
    .replace(/\p{C}/gu, ' ')
    .replace(/\s+/g, ' ')
    .trim();
  return words.length > MESSAGE_MAX ? `${words.slice(0, MESSAGE_MAX)}…` : words;
}

/** HTTP status of a failed request to the cloud; undefined for any other failure. */
export function cloudStatus(error: unknown): number | undefined {
  if (!(error instanceof ProblemError)) return undefined;
  const status = error.problem.detail?.['status'];
  return typeof status === 'number' ? status : undefined;
}

/** The API's own words of a failed request, or the whole message of any other failure. */
export function cloudWords(error: unknown): string {
  const { detail, message } = asProblem(error, 'cloud-api-failed');
  const said = detail?.['said'];
  return typeof said === 'string' && said !== '' ? said : message;
}
