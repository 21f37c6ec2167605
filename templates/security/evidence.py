# Reads what the security checks need, and prints it as JSON. It changes nothing. The server puts a line in front of it:
# REQUEST = {...}, and gives both to `python3 -I -` on standard input, so that nothing of it is an argument.
# Of secrets it gets salted digests of pieces only: a node learns none that it does not have.
import ast
import glob
import grp
import gzip
import hashlib
import json
import os
import pwd
import re
import socket
import ssl
import stat
import struct
import subprocess
import warnings

warnings.simplefilter('ignore')
os.environ.update(LC_ALL='C', PATH='/usr/sbin:/usr/bin:/sbin:/bin', HOME='/root')

CONTENT_MAX = 262144
TREE_MAX = 5000
LOG_FILE_MAX = 64 << 20
LOG_TOTAL_MAX = 256 << 20
OPEN_FILE_MAX = 1 << 20
JOURNAL_LINES = 200000
CHUNK = 4 << 20
TIMEOUT = 8


def named(read, number):
    try:
        return read(number)[0]
    except KeyError:
        return str(number)


def look(path):
    try:
        s = os.lstat(path)
    except OSError:
        return None
    kind = 'link' if stat.S_ISLNK(s.st_mode) else 'folder' if stat.S_ISDIR(s.st_mode) else 'file' if stat.S_ISREG(s.st_mode) else 'other'
    return {'path': path, 'mode': stat.S_IMODE(s.st_mode), 'owner': named(pwd.getpwuid, s.st_uid), 'group': named(grp.getgrgid, s.st_gid), 'kind': kind}


def tree(root):
    found = [look(root)]
    for folder, folders, files in os.walk(root):
        found += [look(os.path.join(folder, name)) for name in sorted(folders) + sorted(files)]
        if len(found) > TREE_MAX:
            break
    return [f for f in found if f]


def content(path):
    try:
        with open(path, 'rb') as f:
            return f.read(CONTENT_MAX).decode('utf-8', 'replace')
    except OSError:
        return None


def literals(paths):
    """Names that a module of settings ends up with, without running it: later files win."""
    values = {}
    for path in paths:
        try:
            body = ast.parse(content(path) or '').body
        except SyntaxError:
            continue
        for node in body:
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                try:
                    value = ast.literal_eval(node.value)
                    json.dumps(value)
                    values[node.targets[0].id] = value
                except (ValueError, TypeError, SyntaxError):
                    values[node.targets[0].id] = {'computed': True}
    return values


def command(c):
    try:
        done = subprocess.run(c['argv'], input=c.get('stdin', ''), capture_output=True, text=True, errors='replace', timeout=40,
                              env={**os.environ, **c.get('env', {})})
        return {'code': done.returncode, 'out': done.stdout[:CONTENT_MAX], 'error': done.stderr[-500:]}
    except (OSError, subprocess.TimeoutExpired) as e:
        return {'code': -1, 'out': '', 'error': str(type(e).__name__)}


def dial(p):
    s = socket.create_connection((p['address'], p['port']), TIMEOUT)
    s.settimeout(TIMEOUT)
    if p['speaks'] == 'mysql':
        # Protocol::HandshakeV10, then SSLRequest: mariadb.com/kb/en/connection
        s.recv(4096)
        s.sendall(struct.pack('<I', 32 | 1 << 24) + struct.pack('<IIB23x', 0x00000200 | 0x00000800 | 0x00008000, 1 << 24, 33))
    return s


def attempt(work):
    try:
        return work()
    except (OSError, ValueError) as e:
        return e


def handshake(p, version=None):
    if version is None:
        context = ssl.create_default_context(cadata=REQUEST['ca'])
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_ciphers('ALL:@SECLEVEL=0')
        context.minimum_version = context.maximum_version = version
    with dial(p) as s, context.wrap_socket(s, server_hostname=p['host']) as t:
        answer = None
        if version is None and p['says'] is not None:
            try:
                t.sendall(p['says'].encode())
                answer = t.recv(512).decode('utf-8', 'replace')
            except OSError:
                answer = ''
        return {'version': t.version(), 'answer': answer}


def in_clear(p):
    with socket.create_connection((p['address'], p['port']), TIMEOUT) as s:
        s.settimeout(TIMEOUT)
        s.sendall(b'GET / HTTP/1.1\r\nHost: halligan\r\nConnection: close\r\n\r\n')
        return s.recv(512).decode('latin-1').split('\r\n')[0]


def tls(p):
    good = attempt(lambda: handshake(p))
    old = {name: not isinstance(attempt(lambda v=v: handshake(p, v)), Exception)
           for name, v in (('TLSv1', ssl.TLSVersion.TLSv1), ('TLSv1.1', ssl.TLSVersion.TLSv1_1))}
    clear = attempt(lambda: in_clear(p)) if p['speaks'] == 'tls' else ''
    ok = not isinstance(good, Exception)
    return {'name': p['name'], 'address': p['address'], 'port': p['port'], 'ok': ok, 'version': good['version'] if ok else None,
            'answer': good['answer'] if ok else None, 'error': None if ok else (getattr(good, 'verify_message', '') or str(good))[:200],
            'old': [name for name, taken in old.items() if taken], 'clear': '' if isinstance(clear, Exception) else clear}


def amqp(p):
    """Whether RabbitMQ takes the account: AMQP 0-9-1, PLAIN."""
    def exactly(s, n):
        data = b''
        while len(data) < n:
            more = s.recv(n - len(data))
            if not more:
                return None
            data += more
        return data

    def method(s):
        head = exactly(s, 7)
        if head is None:
            return None
        body = exactly(s, struct.unpack('>I', head[3:7])[0] + 1)
        return None if body is None else struct.unpack('>HH', body[:4])

    def login():
        context = ssl.create_default_context(cadata=REQUEST['ca'])
        with socket.create_connection((p['address'], p['port']), TIMEOUT) as raw, context.wrap_socket(raw, server_hostname=p['host']) as s:
            s.settimeout(TIMEOUT)
            s.sendall(b'AMQP\x00\x00\x09\x01')
            if method(s) != (10, 10):
                return 'unknown'
            answer = ('\0' + p['user'] + '\0' + p['password']).encode()
            body = struct.pack('>HHI', 10, 11, 0) + b'\x05PLAIN' + struct.pack('>I', len(answer)) + answer + b'\x05en_US'
            s.sendall(struct.pack('>BHI', 1, 0, len(body)) + body + b'\xce')
            # Who is refused is answered late, or cut off.
            try:
                return 'taken' if method(s) == (10, 30) else 'refused'
            except OSError:
                return 'refused'
    result = attempt(login)
    return {'user': p['user'], 'password': p['password'], 'result': 'unknown' if isinstance(result, Exception) else result}


class Needles:
    """Finds pieces of secrets in bytes by their digests."""

    def __init__(self, asked):
        self.salt = asked['salt'].encode()
        self.width = asked['width']
        self.by_digest = {d: i for i, digests in enumerate(asked['digests']) for d in digests}
        self.run = re.compile(rb'[A-Za-z0-9+/_=-]{%d,}' % self.width)
        self.harmless = set()

    def find(self, data):
        found = set()
        for m in self.run.finditer(data):
            run = m.group()
            if run in self.harmless:
                continue
            hits = {self.by_digest.get(hashlib.sha256(self.salt + run[i:i + self.width]).hexdigest()[:24])
                    for i in range(len(run) - self.width + 1)} - {None}
            found |= hits
            if not hits and len(run) < 4096 and len(self.harmless) < 500000:
                self.harmless.add(run)
        if b'PRIVATE KEY-----' in data and re.search(rb'-----BEGIN [A-Z ]*PRIVATE KEY-----[\r\n\\]+n?[A-Za-z0-9+/]{40}', data):
            found.add(-1)
        return found

    def stream(self, f, most):
        found, rest, left = set(), b'', most
        while left > 0:
            data = f.read(min(CHUNK, left))
            if not data:
                break
            left -= len(data)
            found |= self.find(rest + data)
            rest = data[-1024:]
        return found, most - left


def processes(needles):
    found = []
    for pid in sorted(filter(str.isdigit, os.listdir('/proc')), key=int):
        try:
            with open('/proc/%s/cmdline' % pid, 'rb') as f:
                line = f.read()
            uid = os.stat('/proc/' + pid).st_uid
        except OSError:
            continue
        words = line.rstrip(b'\0').split(b'\0')
        if not line or int(pid) == os.getpid():
            continue
        text = [w.decode('utf-8', 'replace') for w in words]
        vnc = [text[i + 1] for i in range(len(text) - 1) if text[i] == '-vnc']
        found.append({'user': named(pwd.getpwuid, uid), 'program': ' '.join(os.path.basename(w) for w in text[:2])[:80],
                      'secrets': sorted(needles.find(line)), 'vnc': vnc[0] if vnc else None})
    return found


def logs(needles, roots):
    files = []
    for root in roots:
        for folder, folders, names in os.walk(root):
            if 'journal' in folders:
                folders.remove('journal')
            for name in names:
                path = os.path.join(folder, name)
                try:
                    s = os.lstat(path)
                except OSError:
                    continue
                if stat.S_ISREG(s.st_mode) and s.st_size and not name.endswith(('.xz', '.zst', '.bz2')):
                    files.append((s.st_mtime, path))
    left, hits, read = LOG_TOTAL_MAX, [], 0
    for _, path in sorted(files, reverse=True):
        if left <= 0:
            break
        try:
            with (gzip.open(path) if path.endswith('.gz') else open(path, 'rb')) as f:
                found, size = needles.stream(f, min(left, LOG_FILE_MAX))
        except (OSError, EOFError):
            continue
        left -= size
        read += 1
        if found:
            hits.append({'path': path, 'secrets': sorted(found)})
    try:
        journal = subprocess.Popen(['journalctl', '-q', '--no-pager', '-o', 'cat', '-n', str(JOURNAL_LINES)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        found, size = needles.stream(journal.stdout, LOG_FILE_MAX)
        journal.kill()
        journal.wait()
        if found:
            hits.append({'path': 'the journal', 'secrets': sorted(found)})
    except OSError:
        pass
    return {'files': read, 'bytes': LOG_TOTAL_MAX - left, 'whole': left > 0, 'hits': hits}


def readable(needles, roots):
    """Secrets in files that everybody on the node can read."""
    hits = []
    for root in roots:
        for folder, folders, names in os.walk(root):
            try:
                if not os.stat(folder).st_mode & 0o001:
                    folders[:] = []
                    continue
            except OSError:
                continue
            for name in names:
                path = os.path.join(folder, name)
                try:
                    s = os.lstat(path)
                    if not stat.S_ISREG(s.st_mode) or not s.st_mode & 0o004 or s.st_size > OPEN_FILE_MAX:
                        continue
                    with open(path, 'rb') as f:
                        found = needles.find(f.read())
                except OSError:
                    continue
                if found:
                    hits.append({'path': path, 'secrets': sorted(found)})
    return hits


def passwords():
    """Accounts of the system that log in by password, and those that need none."""
    usable, empty = [], []
    try:
        with open('/etc/shadow') as f:
            for line in f:
                name, word = line.split(':')[:2]
                (empty if word == '' else usable if word[0] not in '!*' else []).append(name)
    except OSError:
        pass
    return {'usable': usable, 'empty': empty}


def main():
    needles = Needles(REQUEST['needles'])
    print(json.dumps({
        'paths': [f for root in REQUEST['trees'] for f in tree(root)] + [f for f in (look(p) for g in REQUEST['paths'] for p in sorted(glob.glob(g))) if f],
        'contents': {p: text for g in REQUEST['contents'] for p in sorted(glob.glob(g)) for text in [content(p)] if text is not None},
        'settings': literals([p for g in REQUEST['settings'] for p in sorted(glob.glob(g))]),
        'commands': {c['name']: command(c) for c in REQUEST['commands']},
        'tls': [tls(p) for p in REQUEST['tls']],
        'amqp': [amqp(p) for p in REQUEST['amqp']],
        'passwords': passwords(),
        'processes': processes(needles),
        'logs': logs(needles, REQUEST['logs']),
        'readable': readable(needles, REQUEST['readable']),
    }))


main()
