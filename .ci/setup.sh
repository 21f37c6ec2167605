#!/bin/sh
# Makes a bare clone ready: .ci/setup.sh [test|lab]. Says what it installs; quick when there is nothing to do.
#   test  what lint, types and unit tests need
#   lab   also what images, the virtual lab and the suites on real parts need (demo is the same)
set -eu
cd "$(dirname "$0")/.."
level=${1:-test}
say() { printf 'setup: %s\n' "$*"; }
die() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

command -v node >/dev/null || die 'Node.js is missing. Install Node.js 20 or newer, then repeat.'
major=$(node -p 'process.versions.node.split(".")[0]')
[ "$major" -ge 20 ] || die "Node.js $(node -v) is too old: 20 or newer is needed."

# 1. Debian packages
lists=.ci/packages-test.txt
case $level in
  test) ;;
  lab | demo) lists="$lists .ci/packages-lab.txt" ;;
  *) die "unknown level \"$level\": test, lab or demo" ;;
esac
command -v dpkg-query >/dev/null || die 'This is no Debian or Ubuntu machine (no dpkg-query): install what .ci/packages-*.txt lists by hand.'
# shellcheck disable=SC2086
wanted=$(cat $lists | sed 's/#.*//' | tr -s ' \n' '\n\n' | sort -u)
missing=
for package in $wanted; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
  [ "$(id -u)" = 0 ] || die "these packages are missing and only root can install them:$missing"
  say "installing Debian packages:$missing"
  log=$(mktemp)
  # Services of these packages are not wanted on this machine; only the programs are.
  policy=
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    policy=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
  fi
  trap '[ -z "$policy" ] || rm -f "$policy"; rm -f "$log"' EXIT
  {
    apt-get -q update
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $missing
  } >"$log" 2>&1 </dev/null || {
    tail -n 20 "$log" >&2
    die 'apt-get failed; its last lines are above.'
  }
  [ -z "$policy" ] || rm -f "$policy"
  policy=
fi

# 2. npm packages
stamp=node_modules/.halligan-lock
now=$(sha256sum package-lock.json | cut -d' ' -f1)-node$major
if [ "$(cat $stamp 2>/dev/null)" != "$now" ]; then
  say 'installing npm packages (a few minutes: sqlite3 and ssh2 are compiled)'
  log=$(mktemp)
  npm ci --no-audit --no-fund >"$log" 2>&1 </dev/null || {
    tail -n 30 "$log" >&2
    rm -f "$log"
    die 'npm ci failed; its last lines are above.'
  }
  rm -f "$log"
  node -e 'require("sqlite3"); require("ssh2")' || die 'sqlite3 or ssh2 was installed but does not load; remove node_modules and repeat.'
  printf '%s\n' "$now" >$stamp
fi

# 3. The program
sources=$(find provisioner installer roles bench test templates tsconfig.json package.json -type f \( -name '*.ts' -o -name '*.json' \) -exec sha256sum {} + | sort | sha256sum | cut -d' ' -f1)
if [ "$(cat dist/.sources 2>/dev/null)" != "$sources" ]; then
  say 'compiling'
  rm -rf dist
  npx --no-install tsc -p tsconfig.json </dev/null || die 'the sources do not compile; the messages are above.'
  printf '%s\n' "$sources" >dist/.sources
fi

# 4. The UI: it takes types and pure functions of the program, too
pages=$(find ui provisioner package-lock.json -type f ! -path '*/node_modules/*' -exec sha256sum {} + | sort | sha256sum | cut -d' ' -f1)
if [ "$(cat dist/.web 2>/dev/null)" != "$pages" ]; then
  say 'building the UI'
  npm run -s build:ui </dev/null || die 'the UI does not build; the messages are above.'
  printf '%s\n' "$pages" >dist/.web
fi
say "ready ($level)"
