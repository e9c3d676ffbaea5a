"""Processes with chosen uids, cgroups and ends: who asks the broker, in the tests of jobs and identities."""
import ctypes
import json
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid

libc = ctypes.CDLL(None, use_errno=True)


def cgroup_root():
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        if os.path.exists(os.path.join(root, "cgroup.procs")):
            return root
    return None


def cgroups_missing():
    """Why no cgroup can be made here, or None."""
    root = cgroup_root()
    if not root:
        return "there is no cgroup-v2 tree"
    path = os.path.join(root, f"cotter-test-{uuid.uuid4().hex[:8]}")
    try:
        os.mkdir(path)
        os.rmdir(path)
    except OSError as e:
        return f"cgroups cannot be made here: {e}"
    return None


class Cgroup:
    """A cgroup of the test's own."""

    def __init__(self, name=None):
        self.name = "/" + (name or f"cotter-test-{uuid.uuid4().hex[:8]}")
        self.dir = cgroup_root() + self.name
        os.makedirs(self.dir, exist_ok=True)
        self.id = os.stat(self.dir).st_ino

    def enter(self, pid=0):
        with open(os.path.join(self.dir, "cgroup.procs"), "w") as f:
            f.write(str(pid))

    def remove(self):
        for _ in range(200):
            try:
                with open(os.path.join(self.dir, "cgroup.kill"), "w") as f:
                    f.write("1")
            except OSError:
                pass
            try:
                os.rmdir(self.dir)
                return
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError(f"{self.dir} does not go")


def become(uid, gid=None):
    gid = uid if gid is None else gid
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def request(s, method, path, token=None, body=None, head=(), heads=None):
    """One request over a connected socket: (status, JSON or None)."""
    data = json.dumps(body).encode() if body is not None else b""
    lines = [f"{method} /v1/{path} HTTP/1.1", "Host: x", f"Content-Length: {len(data)}", *head]
    if token:
        lines.append(f"X-Vault-Token: {token}")
    s.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
    return answer(s, heads)


def answer(s, heads=None):
    out = b""
    while b"\r\n\r\n" not in out:
        chunk = s.recv(65536)
        if not chunk:
            return 0, None
        out += chunk
    head, _, body = out.partition(b"\r\n\r\n")
    if heads is not None:
        heads.append(head)
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")) if b" 204 " not in head[:14] else 0
    while len(body) < length:
        body += s.recv(65536)
    return int(head.split()[1]), json.loads(body) if body.strip() else None


def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    try:
        s.connect(path)
    except OSError:
        s.close()
        raise
    return s


class Session:
    """One connection, as long as the broker keeps it; then the next."""

    def __init__(self, path):
        self.path, self.s = path, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.s:
            self.s.close()
        self.s = None

    def request(self, *args, **kw):
        self.s = self.s or connect(self.path)
        heads = []
        out = request(self.s, *args, heads=heads, **kw)
        if b"Connection: close" in heads[0]:
            self.close()
        return out


def ask(path, method, url, token=None, body=None):
    with connect(path) as s:
        return request(s, method, url, token, body)


def as_peer(function, *args, uid=None, gid=None, cgroup=None):
    """What function(*args) returns in a process of its own with that uid, in that cgroup."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(r)
            if cgroup:
                cgroup.enter()
            if uid is not None:
                become(uid, gid)
            out = (True, function(*args))
        except BaseException as e:  # whatever it is, the parent tells
            out = (False, repr(e))
        os.write(w, pickle.dumps(out))
        os._exit(0)
    os.close(w)
    data = b""
    while chunk := os.read(r, 65536):
        data += chunk
    os.close(r)
    os.waitpid(pid, 0)
    good, value = pickle.loads(data)
    if not good:
        raise AssertionError(value)
    return value


class Process:
    """A process that waits, in a cgroup and with a uid; it does what it is told, one function at a time."""

    def __init__(self, uid=None, cgroup=None, gid=None):
        self.ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self.ours.close()
            if cgroup:
                cgroup.enter()
            if uid is not None:
                become(uid, gid)
            theirs.sendall(b"+")
            while message := theirs.recv(65536):
                function, args = pickle.loads(message)
                try:
                    out = (True, function(*args))
                except BaseException as e:
                    out = (False, repr(e))
                data = pickle.dumps(out)
                theirs.sendall(struct.pack("=I", len(data)) + data)
            os._exit(0)
        theirs.close()
        self.ours.recv(1)

    def do(self, function, *args):
        self.start(function, *args)
        return self.result()

    def start(self, function, *args):
        self.ours.sendall(pickle.dumps((function, args)))

    def result(self):
        size = struct.unpack("=I", self.ours.recv(4, socket.MSG_WAITALL))[0]
        good, value = pickle.loads(self.ours.recv(size, socket.MSG_WAITALL))
        if not good:
            raise AssertionError(value)
        return value

    def end(self, sig=signal.SIGKILL):
        if self.pid:
            os.kill(self.pid, sig)
            os.waitpid(self.pid, 0)
            self.pid = 0
            self.ours.close()


def passed_connections(path, n, cgroup=None, uid=None, then="exit"):
    """Connections that another process made and handed over, and that process's pid: it has exited, or lives ("stay")."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            if cgroup:
                cgroup.enter()
            if uid is not None:
                become(uid)
            made = [connect(path) for _ in range(n)]
            for s in made:
                os.set_inheritable(s.fileno(), True)
                socket.send_fds(theirs, [b"x"], [s.fileno()])
            if callable(then):
                then()
            elif then == "stay":
                time.sleep(600)
        finally:
            os._exit(0)
    theirs.close()
    passed = [socket.socket(fileno=socket.recv_fds(ours, 1, 1)[1][0]) for _ in range(n)]
    if then == "exit":
        os.waitpid(pid, 0)
    ours.close()
    for s in passed:
        s.settimeout(30)
    return passed, pid


def passed_connection(path, cgroup=None, uid=None, then="exit"):
    (s,), pid = passed_connections(path, 1, cgroup, uid, then)
    return s, pid


class CloneArgs(ctypes.Structure):
    _fields_ = [(n, ctypes.c_uint64) for n in ("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls",
                                               "set_tid", "set_tid_size", "cgroup")]


def process_with_pid(pid):
    """A sleeping process that has this very pid (clone3 with set_tid)."""
    want = (ctypes.c_int * 1)(pid)
    args = CloneArgs(exit_signal=signal.SIGCHLD, set_tid=ctypes.addressof(want), set_tid_size=1)
    got = libc.syscall(435, ctypes.byref(args), ctypes.sizeof(args))
    if got == 0:
        os.execv("/bin/sleep", ["sleep", "600"])
    if got < 0:
        raise OSError(ctypes.get_errno(), "clone3 with set_tid")
    return got


def pidfd_inode(pid):
    fd = os.pidfd_open(pid)
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


ATTACKS = ("ptrace", "mem", "environ", "fd", "vm_readv", "pidfd_getfd", "kill")


def attack(pid):
    """What works against another process, by name."""
    works = []

    def attempt(name, function):
        try:
            if function():
                works.append(name)
        except OSError:
            pass

    def ptrace():
        if libc.ptrace(16, pid, 0, 0) != 0:
            return False
        os.waitpid(pid, 0x40000000)
        libc.ptrace(17, pid, 0, 0)
        return True

    def vm_readv():
        with open(f"/proc/{pid}/maps") as f:
            start = int(f.readline().split("-")[0], 16)
        buffer = ctypes.create_string_buffer(16)
        local = struct.pack("=QQ", ctypes.addressof(buffer), 16)
        remote = struct.pack("=QQ", start, 16)
        return libc.process_vm_readv(pid, local, 1, remote, 1, 0) == 16

    def getfd():
        pidfd = os.pidfd_open(pid)
        fd = libc.syscall(438, pidfd, 0, 0)
        os.close(pidfd)
        return fd >= 0

    attempt("ptrace", ptrace)
    attempt("mem", lambda: open(f"/proc/{pid}/mem", "rb"))
    attempt("environ", lambda: open(f"/proc/{pid}/environ", "rb").read() is not None)
    # the numbers can be listed; what is behind them not
    attempt("fd", lambda: os.readlink(f"/proc/{pid}/fd/1") is not None)
    attempt("vm_readv", vm_readv)
    attempt("pidfd_getfd", getfd)
    attempt("kill", lambda: os.kill(pid, 0) is None)
    return works


if __name__ == "__main__":
    print(json.dumps(attack(int(sys.argv[1]))))
