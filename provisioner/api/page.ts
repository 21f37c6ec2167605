/** docs/api.md, written from the OpenAPI document; a test holds the file to it (`npx vitest run -u` writes it anew). */

interface Operation {
  readonly summary?: string;
  readonly tags?: readonly string[];
}

const INTRO = `# The API

\`/api/v1\`, JSON, described by OpenAPI at \`/api/v1/openapi.json\`. The command line and the UI are its clients. This page is
generated from that description.

**Where it listens.** On a Unix socket of mode 0600 (\`halligan.sock\` in the data directory): who can open it is root. And on
loopback TCP (\`api.listen\`, \`api.port\`; port 0 turns TCP off). There are no accounts yet, so that every user of the server's own
machine can use the TCP port: set \`api.port: 0\` where others log in. What carries secrets (backup, secrets) is served on the
socket alone. The boot listener of the nodes serves no API.

**What it refuses.** On TCP a Host other than 127.0.0.1, localhost or [::1] with the port, a foreign Origin, and requests that
a browser marks as cross-site (DNS rebinding, CSRF); content types other than \`application/json\`; unknown fields; bodies above
256 KiB (site check 2 MiB, console input 64 KiB) or nested deeper than 25; \`__proto__\`. More than 64 streams at once.

**Failures** are \`{code, message, hint, retry, detail}\` with the HTTP status of \`problems.md\`. Requests on several nodes answer 200
with one result per node.

**Events.** \`GET /api/v1/events\` is Server-Sent Events: \`id\` is the event's number, \`event: event\` with the event as JSON. A
client that comes back sends \`Last-Event-ID\` and misses nothing; without it the stream begins with what comes next.
\`event: reload\` says that what is asked for is no longer kept (or the database was restored): read the state anew, go on with the
new id. Comments (\`: heartbeat\`) come every 15 seconds of silence; a client that takes nothing for 30 seconds is cut. With
\`Accept: application/json\` the same path answers one page.

**Consoles.** \`console/stream\` is raw bytes for as long as the client reads; \`console/input\` takes \`application/octet-stream\`.

\`\`\`
curl --unix-socket /var/lib/halligan/halligan.sock http://localhost/api/v1/nodes
curl --unix-socket /var/lib/halligan/halligan.sock -N -H 'Last-Event-ID: 0' http://localhost/api/v1/events
curl --unix-socket /var/lib/halligan/halligan.sock http://localhost/api/v1/nodes/n07/actions -H 'Content-Type: application/json' -d '{"action":"install"}'
\`\`\`
`;

export function apiPage(openapi: { paths?: object }): string {
  const rows = Object.entries((openapi.paths ?? {}) as Record<string, Record<string, Operation>>).flatMap(
    ([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase(), ...operation })),
  );
  const tags = [...new Set(rows.map(r => r.tags?.[0] ?? 'other'))].sort();
  return [
    INTRO,
    '## Routes',
    '',
    ...tags.flatMap(tag => [
      `### ${tag}`,
      '',
      '| request | what |',
      '|---|---|',
      ...rows
        .filter(r => (r.tags?.[0] ?? 'other') === tag)
        .map(r => `| \`${r.method} ${r.path}\` | ${r.summary ?? ''} |`),
      '',
    ]),
  ].join('\n');
}
