/** Nodes as a server's client sees them, for suites that wait for them. */
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { promisify } from 'node:util';
import type { DemoClient } from '../../provisioner/demo/client.js';
import type { Lab } from '../../provisioner/lab/index.js';
import type { NodeView, Why } from '../../provisioner/node/service.js';

const run = promisify(execFile);

/** Waits for one of the states; throws with the status sentence when it never comes or the node fails elsewhere. */
export async function reachState(
  client: () => DemoClient,
  name: string,
  states: string | readonly string[],
  seconds: number,
): Promise<NodeView> {
  const wanted = typeof states === 'string' ? [states] : states;
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const node = await client().get<NodeView>(`/nodes/${name}`);
    if (wanted.includes(node.state)) return node;
    if (node.state.endsWith('-failed') || Date.now() > end) {
      const { trace } = await client().get<Why>(`/nodes/${name}/why`);
      const tail = trace.slice(-8).map(t => `${t.layer}: ${t.message}`);
      throw new Error(
        `${name} should be ${wanted.join(' or ')}: ${node.sentence}\n${JSON.stringify(node.failure?.detail ?? {}, null, 1)}\n${tail.join('\n')}`,
      );
    }
    await new Promise(r => setTimeout(r, 500));
  }
}

/** A command on an installed system, by a real ssh with the operator's key and the host key that the server knows. */
export async function sshInstalled(
  lab: Lab,
  node: NodeView,
  files: { readonly key: string; readonly known: string },
  command: string,
  timeoutMs = 120_000,
): Promise<string> {
  const { os } = node.status;
  if (!os) throw new Error(`${node.name} has no installed system`);
  writeFileSync(files.known, `${os.address} ${os.hostKey}\n`);
  const { stdout } = await run(
    'ip',
    [
      ...['netns', 'exec', lab.netns, 'ssh', '-i', files.key, '-o', `UserKnownHostsFile=${files.known}`],
      ...['-o', 'BatchMode=yes', '-o', 'StrictHostKeyChecking=yes', '-o', 'ConnectTimeout=20'],
      ...[`${os.login}@${os.address}`, command],
    ],
    { timeout: timeoutMs, maxBuffer: 1 << 26 },
  );
  return stdout.trim();
}
