/** Clouds named by how they behave, for the API and the command line. */
import type { ImportedImage } from '../../../provisioner/core/cloud-images.js';
import {
  type ActionFailure,
  type ActionView,
  type ApplyOptions,
  type ApplyResult,
  type CatalogueView,
  type CloudEventData,
  type CloudService,
  type PlanView,
  planSummary,
  type VerifyReport,
} from '../../../provisioner/core/cloud-service.js';
import { fail, problem } from '../../../provisioner/core/problem.js';
import type { CloudStage } from './fakes.js';

const T0 = Date.UTC(2026, 0, 2, 3, 4, 5);

export const action = (more: Partial<ActionView> & Pick<ActionView, 'id' | 'kind' | 'title'>): ActionView => {
  const [node, service] = more.id.split('/') as [string, string];
  return {
    node,
    service,
    reason: 'it does not exist',
    needs: [],
    destroys: null,
    interrupts: null,
    expectedSeconds: 0,
    ...more,
  };
};

const NOVA_DIFF = `--- a/etc/nova/nova.conf
+++ b/etc/nova/nova.conf
@@ -1,3 +1,3 @@
 [DEFAULT]
-cpu_allocation_ratio = 2
+cpu_allocation_ratio = 4
 transport_url = (secret)
`;

export const ACTIONS: readonly ActionView[] = [
  action({
    id: 'ctl/packages/packages',
    kind: 'packages',
    title: 'install 312 packages',
    reason: 'not installed: keystone, mariadb-server and 310 more',
    expectedSeconds: 83,
  }),
  action({
    id: 'ctl/identity/file:/etc/keystone/keystone.conf',
    kind: 'file',
    title: 'create /etc/keystone/keystone.conf',
    needs: ['ctl/packages/packages'],
    diff: '--- /dev/null\n+++ b/etc/keystone/keystone.conf\n@@ -0,0 +1,2 @@\n+[DEFAULT]\n+debug = false\n',
  }),
  action({
    id: 'ctl/identity/unit:keystone.service',
    kind: 'unit',
    title: 'restart keystone.service',
    reason: 'what it reads at start changed',
    needs: ['ctl/identity/file:/etc/keystone/keystone.conf'],
    interrupts: 'logins, for some seconds',
    expectedSeconds: 4,
  }),
  action({
    id: 'ctl/image/object:flavor/m1.nano',
    kind: 'object',
    title: 'create flavor m1.nano',
    needs: ['ctl/identity/unit:keystone.service'],
    expectedSeconds: 1,
  }),
  action({
    id: 'cmp1/hypervisor/file:/etc/nova/nova.conf',
    kind: 'file',
    title: 'change /etc/nova/nova.conf',
    reason: 'its content differs',
    diff: NOVA_DIFF,
  }),
  action({
    id: 'cmp1/hypervisor/unit:nova-compute.service',
    kind: 'unit',
    title: 'restart nova-compute.service',
    reason: 'what it reads at start changed',
    needs: ['cmp1/hypervisor/file:/etc/nova/nova.conf', 'ctl/identity/unit:keystone.service'],
    expectedSeconds: 7,
  }),
];

export const DESTROYING = action({
  id: 'vol/volume-backend/command:group',
  kind: 'command',
  title: 'Make the volume group',
  reason: 'its check says that it is not done',
  destroys: 'everything on /dev/sdb',
  expectedSeconds: 2,
});

export const plan = (actions: readonly ActionView[], more: Partial<PlanView> = {}): PlanView => ({
  hash: '3f2a9c51d0e4b768',
  createdMs: T0,
  release: 'debian-12-zed',
  nodes: [
    { name: 'ctl', roles: ['controller', 'network'], reachable: true, expected: false, problem: null },
    { name: 'cmp1', roles: ['compute'], reachable: true, expected: false, problem: null },
    { name: 'vol', roles: ['volume'], reachable: true, expected: false, problem: null },
  ],
  problems: [],
  actions,
  summary: planSummary(actions),
  ...more,
});

export const SILENT_NODE = {
  name: 'cmp2',
  roles: ['compute'],
  reachable: false,
  expected: false,
  problem: problem('ssh-failed', 'cmp2: 10.99.0.22:22 does not answer.'),
};

export const REPORT: VerifyReport = {
  runId: 'run-verify',
  startedMs: T0,
  seconds: 61.4,
  ok: true,
  leftovers: [],
  steps: [
    {
      name: 'services',
      title: 'Every service answers',
      state: 'passed',
      seconds: 1.24,
      expectedSeconds: 2,
      message: null,
      hint: null,
    },
    {
      name: 'floating-ip',
      title: 'A VM answers SSH through its floating IP',
      state: 'passed',
      seconds: 20,
      expectedSeconds: 15,
      message: null,
      hint: null,
    },
  ],
};

export const BAD_REPORT: VerifyReport = {
  ...REPORT,
  ok: false,
  leftovers: ['router 6a0f (halligan-verify-1)'],
  steps: [
    REPORT.steps[0]!,
    {
      ...REPORT.steps[1]!,
      state: 'failed',
      message: 'the VM answers ping, but nothing listens on port 22',
      hint: 'Look at its console: `openstack console log show halligan-verify-1`.',
    },
    {
      name: 'volume-attach',
      title: 'A volume is attached',
      state: 'skipped',
      seconds: 0,
      expectedSeconds: 8,
      message: 'the cloud has no volumes',
      hint: null,
    },
  ],
};

export const FAILURES: { failed: ActionFailure[]; blocked: ActionFailure[] } = {
  failed: [
    {
      id: 'ctl/identity/unit:keystone.service',
      node: 'ctl',
      service: 'identity',
      title: 'restart keystone.service',
      problem: problem(
        'cloud-step-failed',
        'ctl: "restart keystone.service" (identity) failed with code 1: Access denied for user keystone',
        {
          hint: 'Look at `journalctl -u keystone.service` on ctl, mend the cause, then `halligan apply` goes on from here.',
          detail: {
            unit: 'keystone.service',
            code: 1,
            log: ['one', 'two', 'three', 'four', 'Access denied for user keystone', 'uwsgi: exit 1'],
          },
        },
      ),
    },
  ],
  blocked: [
    {
      id: 'ctl/image/object:flavor/m1.nano',
      node: 'ctl',
      service: 'image',
      title: 'create flavor m1.nano',
      problem: problem(
        'cloud-step-blocked',
        '"create flavor m1.nano" on ctl waits for "restart keystone.service" on ctl.',
      ),
    },
  ],
};

export const result = (more: Partial<ApplyResult> = {}): ApplyResult => ({
  planHash: '3f2a9c51d0e4b768',
  actions: 6,
  done: 6,
  failed: [],
  blocked: [],
  seconds: 94.6,
  chain: [
    { id: 'ctl/packages/packages', title: 'install 312 packages', seconds: 83, waited: 0 },
    { id: 'ctl/identity/unit:keystone.service', title: 'restart keystone.service', seconds: 4.2, waited: 0.4 },
  ],
  ...more,
});

/** What happens in a run: the events that are told, and its end. `end: null`: it never ends. */
interface Happening {
  readonly events: readonly {
    [T in keyof CloudEventData]: { type: T; data: Omit<CloudEventData[T], 'runId'> };
  }[keyof CloudEventData][];
  readonly end: { readonly state: 'done' | 'failed' | 'aborted'; readonly result: unknown } | null;
}

const told = (a: ActionView, state: 'begin' | 'ok' | 'failed' | 'blocked', message: string | null = null) =>
  ({
    type: 'cloud.action',
    data: {
      id: a.id,
      node: a.node,
      service: a.service,
      title: a.title,
      state,
      seconds: state === 'ok' ? a.expectedSeconds + 0.12 : null,
      message,
    },
  }) as const;

const OBEYED: Happening = {
  events: ACTIONS.flatMap(a => [told(a, 'begin'), told(a, 'ok')]),
  end: { state: 'done', result: result() },
};

export const IMPORTED: ImportedImage = {
  id: '6a0f0c3e-1111-4222-8333-444455556666',
  name: 'w11',
  profile: 'windows',
  diskFormat: 'qcow2',
  bytes: 12_000_000,
  virtualBytes: 42_949_672_960,
  sha256: 'ab'.repeat(32),
  minDiskGiB: 40,
  visibility: 'shared',
  properties: { os_type: 'windows' },
  drivers: null,
  notes: ['A server with a TPM finds a host only where swtpm is switched on.'],
  seconds: 3.2,
};

/** Does what the plan says. */
export function obedientCloud(
  options: {
    plan?: PlanView;
    drift?: PlanView;
    happening?: Happening;
    report?: VerifyReport;
    calls?: unknown[][];
  } = {},
): (stage: CloudStage) => CloudService {
  const wanted = options.plan ?? plan(ACTIONS);
  const calls = options.calls ?? [];
  return ({ feed, runs }) => {
    const perform = async (kind: string, { events, end }: Happening) => {
      const id = `run-${kind}`;
      const run = { id, kind: `cloud-${kind}`, nodeId: null, input: {}, createdMs: T0 };
      for (const e of events) await feed.emit({ type: e.type, message: e.type, data: { runId: id, ...e.data } });
      // Of another run, at the same time.
      await feed.emit({ type: 'cloud.done', message: 'x', data: { runId: 'run-other', state: 'failed' } });
      if (end) await feed.emit({ type: 'cloud.done', message: 'x', data: { runId: id, state: end.state } });
      runs.set(id, {
        ...run,
        state: end?.state ?? 'running',
        result: end?.result ?? null,
        endedMs: end ? T0 + 95_000 : null,
      });
      return { runId: id };
    };
    return {
      async plan(o) {
        calls.push(['plan', o]);
        return wanted;
      },
      async apply(o: ApplyOptions) {
        calls.push(['apply', o]);
        if (o.planHash !== undefined && o.planHash !== wanted.hash)
          fail('plan-changed', `The plan is ${wanted.hash} by now.`);
        return perform('apply', options.happening ?? OBEYED);
      },
      drift: async () => options.drift ?? plan([]),
      async verify(o) {
        calls.push(['verify', o]);
        const report = options.report ?? REPORT;
        return perform('verify', {
          events: report.steps.map(s => ({
            type: 'cloud.check',
            data: { name: s.name, title: s.title, state: s.state, seconds: s.seconds, message: s.message },
          })),
          end: { state: report.ok ? 'done' : 'failed', result: report },
        });
      },
      async security() {
        calls.push(['security', null]);
        const report = options.report ?? REPORT;
        return perform('security', {
          events: report.steps.map(s => ({
            type: 'cloud.check',
            data: { name: s.name, title: s.title, state: s.state, seconds: s.seconds, message: s.message },
          })),
          end: { state: report.ok ? 'done' : 'failed', result: report },
        });
      },
      latestVerification: async () => options.report ?? null,
      credentials: async () => ({
        authUrl: 'https://10.99.0.11:5000/v3',
        region: 'RegionOne',
        username: 'admin',
        password: "it's secret",
        project: 'admin',
        userDomain: 'Default',
        projectDomain: 'Default',
        caFile: '/var/lib/halligan/ca.pem',
        ca: '-----BEGIN CERTIFICATE-----\n',
      }),
      async importImage(o) {
        calls.push(['importImage', o]);
        return perform('image', {
          events: ['read the image', `upload ${o.name}`].map(step => ({
            type: 'cloud.image',
            data: { name: o.name, step },
          })),
          end: { state: 'done', result: { ...IMPORTED, name: o.name, profile: o.profile } },
        });
      },
      async removeNode(name, o) {
        calls.push(['removeNode', name, o]);
        return perform('remove-node', {
          events: [told(action({ id: `${name}/hypervisor/x`, kind: 'object', title: 'move 2 servers away' }), 'ok')],
          end: { state: 'done', result: result({ actions: 1, done: 1, seconds: 12 }) },
        });
      },
    };
  };
}

/** One unit does not start; what needs it waits in vain. */
export const stumblingCloud = (): ((stage: CloudStage) => CloudService) =>
  obedientCloud({
    happening: {
      events: [
        told(ACTIONS[0]!, 'ok'),
        told(ACTIONS[2]!, 'failed', FAILURES.failed[0]!.problem.message),
        told(ACTIONS[3]!, 'blocked', FAILURES.blocked[0]!.problem.message),
      ],
      end: { state: 'failed', result: result({ done: 4, ...FAILURES }) },
    },
  });

/** A run that is still under way whenever one looks. */
export const endlessCloud = (): ((stage: CloudStage) => CloudService) =>
  obedientCloud({ happening: { events: [told(ACTIONS[0]!, 'ok')], end: null } });

/** A run that the server gave up, with a reason. */
export const abandonedCloud = (): ((stage: CloudStage) => CloudService) =>
  obedientCloud({
    happening: {
      events: [],
      end: { state: 'failed', result: problem('database-busy', 'A newer server took over this database.') },
    },
  });

/** Somebody else works on it. */
export const busyCloud = (): ((stage: CloudStage) => CloudService) => stage => ({
  ...obedientCloud()(stage),
  apply: async () => fail('cloud-busy', 'The run run-7 works on the cloud.'),
  verify: async () => fail('cloud-busy', 'The run run-7 works on the cloud.'),
  security: async () => fail('cloud-busy', 'The run run-7 works on the cloud.'),
});

export const CATALOGUE: CatalogueView = {
  services: [
    { name: 'database', title: 'Database', sentence: 'Keeps the state of every API.', needs: [] },
    { name: 'identity', title: 'Identity', sentence: 'Says who may do what.', needs: ['database'] },
    { name: 'hypervisor', title: 'Hypervisor', sentence: 'Runs virtual machines.', needs: ['identity'] },
  ],
  roles: [
    {
      name: 'controller',
      title: 'Controller',
      sentence: 'The APIs, their database and the dashboard.',
      services: ['database', 'identity'],
      limits: [{ least: 1, most: 1, sentence: 'A cloud has exactly one controller.' }],
      needs: [],
      conflicts: [],
    },
    {
      name: 'compute',
      title: 'Compute',
      sentence: 'Runs virtual machines.',
      services: ['hypervisor'],
      limits: [],
      needs: [{ role: 'controller', sentence: 'Compute nodes need a controller to answer to.' }],
      conflicts: [],
    },
  ],
};
