/**
 * What runs on the node for detached work, as text. One folder per unit, made by `mkdir`, which is the test-and-set
 * that keeps a unit from being started twice:
 *
 *   /run/halligan/UNIT/script      what the caller gave
 *                     /env         mode 0600, read and removed by the runner before the script starts
 *                     /runner      runs the script, bounds its output
 *                     /finish      ExecStopPost of the unit: leaves the exit code however the script ended
 *                     /pid         process id of the runner
 *                     /log         output, at most LOG_MAX_BYTES
 *                     /exit-code   `CODE RESULT`, renamed into place when nothing of the unit runs any more
 *
 * /run is a tmpfs: after a restart of the node the folder is gone, and with it the claim that the work was done.
 */
import { ProblemError, problem } from '../problem.js';
import { shQuote } from './quote.js';
import type { DetachedJob } from './types.js';

/** The log lives in the node's memory, so it is bounded; what comes after is dropped. */
export const LOG_MAX_BYTES = 16 * 1024 * 1024;
/** The line that ends a log that was cut off. */
export const DROPPED = '[halligan: more output was dropped]';
/** Output of the last lines that a result carries. */
export const TAIL_BYTES = 2048;
/** How long systemd waits between SIGTERM and SIGKILL for the processes of a unit. */
const STOP_SECONDS = 10;
/** A folder without a running unit is given this long to come to life before the start counts as broken off. */
const START_SECONDS = 30;

const UNIT = /^[a-z0-9][a-z0-9-]{0,199}$/;
const ENV_NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;

const refuse = (message: string): never => {
  throw new ProblemError(problem('request-invalid', message));
};

export function checkUnit(unit: string): string {
  return UNIT.test(unit) ? unit : refuse(`"${unit.slice(0, 80)}" is not a unit name of the form [a-z0-9-]+.`);
}

const RUNNER = `
cd "$1" || exit 70
echo $$ >pid.tmp && mv pid.tmp pid
HOME=/root; LANG=C.UTF-8; export HOME LANG
set -a; . ./env; set +a
rm -f env
mkfifo -m 600 pipe || exit 71
# cat, because head and tail hold back what they write to a file; the kernel stops it at the limit (in 512-byte blocks).
{ (ulimit -c 0; ulimit -f ${LOG_MAX_BYTES / 512}; exec cat)
  [ "$(head -c 1 | wc -c)" -eq 0 ] || { printf '\\n%s\\n' '${DROPPED}'; cat >/dev/null; }
} <pipe >>log &
filter=$!
(cd / && exec sh "$1/script") </dev/null >pipe 2>&1
code=$?
# Something that the script left behind may hold the pipe open for ever; what it says is not part of the work.
i=0
while [ $i -lt 20 ] && kill -0 $filter 2>/dev/null; do sleep 0.1; i=$((i + 1)); done
exit $code
`;

const FINISH = `
cd "$1" || exit 0
[ ! -e exit-code ] || exit 0
case $EXIT_CODE in
  exited) code=$EXIT_STATUS ;;
  *) case $EXIT_STATUS in TERM) code=143 ;; KILL) code=137 ;; HUP) code=129 ;; INT) code=130 ;; *) code=255 ;; esac ;;
esac
rm -f env pipe
echo "$code \${SERVICE_RESULT:-unknown}" >exit-code.tmp && mv exit-code.tmp exit-code
`;

/**
 * The program, for `sh` on its standard input, that starts a job unless its folder exists. Prints `started` or
 * `exists`. It is one compound command, so that a connection that breaks off half-way through it executes nothing.
 */
export function startProgram(job: DetachedJob): string {
  const unit = checkUnit(job.unit);
  const env = Object.entries(job.env ?? {}).map(([name, value]) =>
    ENV_NAME.test(name) ? `${name}=${shQuote(value)}\n` : refuse(`"${name.slice(0, 80)}" is no name of a variable.`),
  );
  const seconds = Math.max(1, Math.ceil(job.timeoutMs / 1000));
  const dir = `/run/halligan/${unit}`;
  return `{
set -u
umask 077
d=${shQuote(dir)}
mkdir -p /run/halligan || exit 1
# Names stay for ever, so that no finished work is done again; the logs of yesterday's do not.
find /run/halligan -mindepth 2 -maxdepth 2 -name exit-code -mmin +1440 -execdir rm -f log script runner finish \\; 2>/dev/null
if ! mkdir "$d" 2>/dev/null; then
  [ -d "$d" ] && echo exists && exit 0
  mkdir "$d" || exit 1
fi
if printf %s ${shQuote(job.script)} >"$d/script" && printf %s ${shQuote(env.join(''))} >"$d/env" &&
   printf %s ${shQuote(RUNNER)} >"$d/runner" && printf %s ${shQuote(FINISH)} >"$d/finish" && : >"$d/log" &&
   systemd-run --quiet --collect --unit=${shQuote(`${unit}.service`)} --description=${shQuote(`Halligan ${unit}`)} \\
     --property=Type=exec --property=RuntimeMaxSec=${seconds} --property=TimeoutStopSec=${STOP_SECONDS} \\
     --property=KillMode=control-group --property=StandardOutput=null --property=StandardError=null \\
     --property=ExecStopPost="/bin/sh $d/finish $d" /bin/sh "$d/runner" "$d" </dev/null >&2
then echo started
else
  code=$?
  rm -rf "$d"
  exit $code
fi
exit 0
}
`;
}

/** How one round of following ended, on the node's side. */
export type FollowEnd =
  /** All of it is over; `size` is the length of the whole log. */
  | {
      readonly kind: 'end';
      readonly code: number;
      readonly result: string;
      readonly size: number;
      readonly tail: string;
    }
  /** The folder is gone. */
  | { readonly kind: 'gone' }
  /** The folder was made but the unit never came to life: the program that started it was killed. */
  | { readonly kind: 'stillborn' }
  /** The unit is dead and left no exit code. */
  | { readonly kind: 'vanished' };

const MARK = 'halligan-follow';

/**
 * The command that prints the log from a byte offset until the runner ends, then says on its standard error how things
 * stand. `tail` sleeps in inotify meanwhile: following costs the node nothing.
 */
export function followCommand(unit: string, offset: number): string {
  const program = `
d=/run/halligan/$1
say() { printf '\\n${MARK} %s\\n' "$*" >&2; exit 0; }
[ -d "$d" ] || say gone
alive() { case $(systemctl is-active "$1.service") in active | activating | deactivating) ;; *) return 1 ;; esac; }
i=0
until [ -e "$d/pid" ] || [ -e "$d/exit-code" ]; do
  [ -d "$d" ] || say gone
  if [ $i -ge ${START_SECONDS * 5} ]; then alive "$1" || say stillborn; fi
  i=$((i + 1)); sleep 0.2
done
if [ -e "$d/exit-code" ]; then tail -c +$(($2 + 1)) "$d/log" 2>/dev/null
else
  tail -c +$(($2 + 1)) -s 0.2 --pid="$(cat "$d/pid")" -f "$d/log" 2>/dev/null
  i=0
  until [ -e "$d/exit-code" ]; do
    [ -d "$d" ] || say gone
    if [ $i -ge ${(STOP_SECONDS + 10) * 10} ]; then alive "$1" || { [ -e "$d/exit-code" ] || say vanished; }; fi
    i=$((i + 1)); sleep 0.1
  done
fi
size=0; [ ! -e "$d/log" ] || { size=$(wc -c <"$d/log"); tail -c ${TAIL_BYTES} "$d/log" >&2; }
say end $(cat "$d/exit-code") $size
`;
  return `sh -c ${shQuote(program)} halligan ${shQuote(checkUnit(unit))} ${offset}`;
}

/** Reads what `followCommand` said on its standard error; undefined when it was cut off before it could. */
export function parseFollowEnd(stderr: string): FollowEnd | undefined {
  const at = stderr.lastIndexOf(`\n${MARK} `);
  if (at === -1 || !stderr.endsWith('\n')) return undefined;
  const words = stderr
    .slice(at + MARK.length + 2)
    .trim()
    .split(' ');
  switch (words[0]) {
    case 'gone':
    case 'stillborn':
    case 'vanished':
      return { kind: words[0] };
    case 'end': {
      const [, code, result = 'unknown', size] = words;
      if (!/^\d+$/.test(code ?? '') || !/^\d+$/.test(size ?? '')) return { kind: 'vanished' };
      return { kind: 'end', code: Number(code), result, size: Number(size), tail: stderr.slice(0, at) };
    }
    default:
      return undefined;
  }
}

/** Moves the folder of a stillborn unit out of the way; of several that try, one succeeds. */
export const clearStillbornCommand = (unit: string): string => {
  const dir = `/run/halligan/${checkUnit(unit)}`;
  return `[ -e ${shQuote(`${dir}/pid`)} ] || mv -T ${shQuote(dir)} ${shQuote(dir)}.stillborn.$$`;
};

/** Stops a unit and waits for it; a unit that is not there is stopped already. */
export const stopCommand = (unit: string): string =>
  `systemctl stop ${shQuote(`${checkUnit(unit)}.service`)} 2>&1 || [ $? -eq 5 ]`;
