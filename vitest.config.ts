import { defineConfig } from 'vitest/config';

const common = { environment: 'node' as const, testTimeout: 20_000, hookTimeout: 30_000 };

// CI sums up the suites; people get the usual lines beside it.
const report = process.env['HALLIGAN_REPORT'];

export default defineConfig({
  test: {
    reporters: report ? ['default', 'json'] : ['default'],
    ...(report ? { outputFile: { json: report } } : {}),
    projects: [
      // Pure decisions and loopback sockets; needs no root, no packages beyond npm's.
      // A second look for what a busy machine made too slow: a defect fails twice.
      { test: { ...common, name: 'unit', retry: 1, include: ['test/unit/**/*.test.ts'] } },
      // A real browser on the real server, on loopback; needs root (the server answers DHCP) and `.ci/setup.sh lab`.
      {
        test: {
          ...common,
          name: 'ui',
          include: ['test/ui/**/*.test.ts'],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          fileParallelism: false,
        },
      },
      // Real DHCP clients, real firmware, real installs in network namespaces; needs root and `.ci/setup.sh lab`.
      {
        test: {
          ...common,
          name: 'spine',
          // Real firmware and clients on a shared machine: a time-out of theirs is worth a second look, a defect fails twice.
          retry: 1,
          include: ['test/spine/**/*.test.ts'],
          testTimeout: 900_000,
          hookTimeout: 900_000,
          fileParallelism: false,
        },
      },
      // OpenStack laid down and proved on container hosts; needs root and `.ci/setup.sh lab`. Steps build on each other, so
      // one that failed twice ends it.
      {
        test: {
          ...common,
          name: 'cloud',
          retry: 1,
          include: ['test/cloud/**/*.test.ts'],
          testTimeout: 1_500_000,
          hookTimeout: 1_500_000,
          fileParallelism: false,
          bail: 1,
        },
      },
      // What takes longer than CI's budget: layouts, plug pulls at every stage, both firmwares.
      {
        test: {
          ...common,
          name: 'long',
          include: ['test/long/**/*.test.ts'],
          testTimeout: 3_600_000,
          hookTimeout: 3_600_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
