"""cotter run: secrets into the command and never into its log, as if cotter were not there."""
import base64
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import termios
import time
import unittest

from harness import BUILD, COTTER, Case, clean_env, run, wait_for

ROOT_USER = os.geteuid() == 0
# what root is told, and who may make no cgroup
AS_ROOT = re.compile(rb"cotter: (this job runs as root, |no cgroup of its own could be made).*\n")
SECRET = "hunter2-correct/horse"
# what a container may not: then files are descriptors
NO_MOUNT = ["setpriv", "--bounding-set", "-sys_admin"] if ROOT_USER else []


class RunCase(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        os.chmod(cls.dir, 0o755)  # other users' jobs, too
        cls.hsm = cls.softhsm()
        cls.b = cls.broker(hsm=cls.hsm, edit=lambda text: text + "  app:\n    - path: app/*\n      allow: [get]\n")
        cls.b.put("app/token", SECRET)
        cls.b.cli("put", "app/db", "--data", "-", stdin='{"user": "bob", "password": "s3same-open"}', check=True)
        cls.b.put("app/empty", "")
        cls.b.put("app/lines", "first line of it\nsecond line of it\n")
        sealed = os.path.join(cls.dir, "raw.age")
        cls.raw = b"\xff\xfe\x00raw-bytes\x01\x80"
        cls.b.cli("seal", "-o", sealed, stdin=cls.raw, check=True)
        cls.b.cli("put", "app/raw", "--sealed", sealed, check=True)

    def go(self, *args, prefix=(), **kw):
        p = run(*prefix, COTTER, "run", *args, env=self.b.env, **kw)
        p.stderr = AS_ROOT.sub(b"", p.stderr)
        return p

    def sh(self, options, script, **kw):
        return self.go(*options, "--", "sh", "-c", script, **kw)

    def out(self, options, script, **kw):
        p = self.sh(options, script, **kw)
        self.assertEqual((p.returncode, p.stderr), (0, b""))
        return p.stdout.decode()


class Deliveries(RunCase):
    def test_environment(self):
        out = self.out(["--no-mask", "--env", "T=app/token", "--env", "P=app/db#password", "-e", "E=app/empty"], 'echo "$T|$P|${E-unset}|"; env | grep -c COTTER_TOKEN || :')
        self.assertEqual(out, f"{SECRET}|s3same-open||\n0\n")

    def test_files(self):
        for prefix in ((), NO_MOUNT):
            out = self.out(["--no-mask", "--file", "T=app/token", "--file", "R=app/raw"], 'cat "$T"; echo; od -An -tx1 "$R" | tr -d " \\n"; echo; stat -L -c "%a %F" "$T"; echo "$T"; stat -f -L -c %T "$T"',
                           prefix=prefix)
            text, raw, mode, path, fs = out.splitlines()
            self.assertEqual((text, bytes.fromhex(raw)), (SECRET, self.raw))
            self.assertEqual(fs, "tmpfs")
            if ROOT_USER and not prefix:
                self.assertEqual((mode, path), ("400 regular file", "/run/cotter-files/T"))
            else:
                self.assertRegex(path, "^/proc/self/fd/[0-9]+$")
        # another process sees none of it
        if ROOT_USER:
            self.assertEqual(os.listdir("/run/cotter-files"), [])

    @unittest.skipUnless(ROOT_USER, "needs root")
    def test_files_of_another_user(self):
        out = self.out(["--no-mask", "--policy", "app", "--user", "daemon", "--file", "T=app/token"], 'cat "$T"; id -un; stat -c %U "$T" "$(dirname "$T")"')
        self.assertEqual(out, SECRET + "daemon\ndaemon\ndaemon\n")

    @unittest.skipUnless(ROOT_USER, "needs root")
    def test_a_memory_file_cannot_be_changed(self):
        p = self.sh(["--no-mask", "--file", "T=app/token"], 'echo x > "$T"; cat "$T"', prefix=NO_MOUNT)
        self.assertEqual(p.stdout.decode(), SECRET)
        self.assertIn(b"not permitted", p.stderr)

    def test_descriptors(self):
        out = self.out(["--no-mask", "--fd", "T=app/token", "--fd", "3=app/db#user", "--fd", "4=app/raw"], 'cat <&3; cat "/proc/self/fd/$T"; cat <&4 | od -An -tx1 | tr -d " \\n"')
        self.assertEqual(out, "bob" + SECRET + self.raw.hex())

    def test_standard_input(self):
        self.assertEqual(self.out(["--no-mask", "--stdin", "app/token"], "cat", stdin=b"not this"), SECRET)

    def template(self, text):
        path = os.path.join(self.dir, "conf.in")
        with open(path, "w") as f:
            f.write(text)
        return path

    def test_templates(self):
        path = self.template("a: {{secret:app/token}}\nb: {{secret:app/db#password}}{{ other }}\n")
        out = self.out(["--no-mask", "--template", path + ":CONF"], 'cat "$CONF"')
        self.assertEqual(out, f"a: {SECRET}\nb: s3same-open{{{{ other }}}}\n")
        target = f"/dev/shm/{os.path.basename(self.dir)}.conf"
        out = self.out(["--template", f"{path}:{target}", "--no-mask"], f"cat {target}; stat -c %a {target}")
        self.assertEqual(out, f"a: {SECRET}\nb: s3same-open{{{{ other }}}}\n400\n")
        self.assertFalse(os.path.exists(target))
        p = subprocess.Popen([COTTER, "run", "--template", f"{path}:{target}", "--", "sleep", "600"], env=self.b.env)
        wait_for("the file", lambda: os.path.exists(target))
        p.kill()
        p.wait()
        wait_for("its end", lambda: not os.path.exists(target))

    def test_what_stands_at_a_target_stays_when_nothing_was_written(self):
        target = f"/dev/shm/{os.path.basename(self.dir)}.theirs"
        with open(target, "w") as f:
            f.write("theirs")
        self.addCleanup(os.unlink, target)
        path = self.template("{{secret:app/none}}")
        for template in (path, "/nonexistent"):
            self.assertNotEqual(self.sh(["--template", f"{template}:{target}"], "echo ran").returncode, 0)
            with open(target) as f:
                self.assertEqual(f.read(), "theirs")

    def test_kill_9_leaves_no_file_of_one_that_refreshes(self):
        target = f"/dev/shm/{os.path.basename(self.dir)}.conf"
        p = subprocess.Popen([COTTER, "run", "--template", f"{self.template('{{secret:app/token}}')}:{target}", "--refresh", "1h", "--", "sleep", "600"], env=self.b.env)
        wait_for("the file", lambda: os.path.exists(target))
        beside = f"{target}.{p.pid}"  # as if it was killed while it wrote
        with open(beside, "w"):
            pass
        p.kill()
        p.wait()
        wait_for("its end", lambda: not os.path.exists(target) and not os.path.exists(beside))

    def test_a_project(self):
        where = self.sub("project")
        with open(os.path.join(where, "t"), "w") as f:
            f.write("{{secret:app/db#user}}")
        with open(os.path.join(where, "cotter.yaml"), "w") as f:
            f.write("run:\n  env:\n    T: app/token\n  files:\n    DB: app/db#password\n  fds:\n    5: app/db#user\n  templates:\n    t: CONF\n  stdin: app/lines\n")
        out = self.out(["--project", "--no-mask"], 'echo "$T"; cat "$DB" "$CONF" -; cat <&5', cwd=where)
        self.assertEqual(out, SECRET + "\ns3same-openbobfirst line of it\nsecond line of itbob")
        for text, says in (("run:\n  env:\n    T: ../x\n", b":3: "), ("run:\n  frob: x\n", b"frob"), ("run: [", b"cotter.yaml"), ("run:\n  env:\n    A: app/token\n    A: app/db\n", b"twice")):
            with open(os.path.join(where, "cotter.yaml"), "w") as f:
                f.write(text)
            p = self.sh(["--project"], "echo ran", cwd=where)
            self.assertEqual((p.stdout, p.returncode != 0), (b"", True))
            self.assertIn(says, p.stderr)

    def test_one_request(self):
        asked = lambda: self.b.status()["requests"]
        before = asked()
        extra = asked() - before
        before = asked()
        self.out(["--env", "A=app/token", "--env", "B=app/db#password", "--no-mask", "--env", "C=app/db#user", "--file", "D=app/lines"], ":")
        self.assertEqual(asked() - before, extra + 1)
        # each secret has its record, though
        log = self.b.audit(3)
        self.assertEqual([re.search(r"secret=(\S+)", line).group(1) for line in log.splitlines() if "ev=get" in line][-3:], ["app/token", "app/db", "app/lines"])

    def test_all_or_nothing(self):
        token = self.b.token("--policy", "release")
        p = run(COTTER, "run", "--env", "A=app/token", "--", "echo", "ran", env={**self.b.env, "COTTER_TOKEN": token})
        self.assertEqual((p.returncode, p.stdout), (3, b""))
        self.b.put("release/npm-token", "not to be told")
        status, reply = self.b.curl("cotter/read", token=token, body=json.dumps({"secrets": [{"path": "release/npm-token"}, {"path": "app/token"}]}).encode())
        self.assertEqual((status, reply), (403, {"errors": ["permission denied"]}))
        status, reply = self.b.curl("cotter/read", token=token, body=json.dumps({"secrets": [{"path": "release/npm-token"}, {"path": "release/none"}]}).encode())
        self.assertEqual(status, 404)
        status, reply = self.b.curl("cotter/read", token=token, body=json.dumps({"secrets": [{"path": "release/npm-token", "version": 1}]}).encode())
        self.assertEqual((status, reply["data"]), (200, {"secrets": [{"path": "release/npm-token", "version": 1, "data": {"value": "not to be told"}}]}))
        for body in ({}, {"secrets": []}, {"secrets": "x"}, {"secrets": [{}]}, {"secrets": [{"path": "../x"}]}, {"secrets": [{"path": "a", "version": -1}]},
                     {"secrets": [{"path": "a", "version": "1"}]}, {"secrets": [{"path": "release/x"}] * 65}):
            self.assertEqual(self.b.curl("cotter/read", token=token, body=json.dumps(body).encode())[0], 400, body)
        # each costs a use
        token = self.b.token("--policy", "release", "--uses", "1")
        both = json.dumps({"secrets": [{"path": "release/npm-token"}] * 2}).encode()
        self.assertEqual(self.b.curl("cotter/read", token=token, body=both)[0], 403)

    def test_what_is_wrong_is_said_before_it_runs(self):
        bad = self.template("{{secret:app/db#none}}")
        open_one = os.path.join(self.dir, "open.in")
        with open(open_one, "w") as f:
            f.write("fine\n{{secret:app/db")
        for options, status, says in ((["--env", "A=app/token", "--file", "A=app/db#user"], 2, "two secrets for one name: A"),
                                      (["--env", "A=app/raw"], 1, "NUL"), (["--env", "A=app/none"], 4, "app/none"), (["--env", "A=app/db"], 2, "2 fields"),
                                      (["--env", "A=app/db#none"], 4, "none"), (["--env", "A=app/db#"], 2, "field"), (["--env", "1A=app/token"], 2, "1A"),
                                      (["--fd", "2=app/token"], 2, "3 to 63"), (["--fd", "5=app/token", "--fd", "5=app/db#user"], 2, "descriptor 5"),
                                      (["--stdin", "app/token", "--stdin", "app/db"], 2, "standard input"), (["--template", bad + ":C"], 4, "none"),
                                      (["--template", open_one + ":C"], 1, "open.in:2"), (["--template", "/nonexistent:C"], 1, "nonexistent"),
                                      (["--template", f"{bad}:{self.dir}/on-disk"], 2, "on a disk"), (["--refresh", "x", "--env", "A=app/token"], 2, "--refresh"),
                                      (["--refresh", "5m"], 2, "--refresh"), (["--refresh-signal", "NOPE", "--env", "A=app/token"], 2, "NOPE"),
                                      (["--project=/nonexistent"], 1, "nonexistent")):
            p = self.sh(options, "echo ran")
            self.assertEqual((p.returncode, p.stdout), (status, b""), (options, p.stderr))
            self.assertIn(says.encode(), p.stderr)
            self.assertNotIn(b"s3same", p.stderr)

    def test_the_longest(self):
        big = base64.b64encode(os.urandom(45000))
        self.b.put("app/big", big)
        p = self.sh(["--file", "B=app/big"], 'cat "$B"; echo .; base64 -w 76 "$B"; head -c 3000 "$B"')
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertNotIn(big[1000:1300], p.stdout)
        self.assertNotIn(base64.b64encode(big)[1000:1050], p.stdout.replace(b"\n", b""))
        self.assertLess(len(p.stdout), 2000)
        p = self.b.cli("put", "app/huge", stdin=b"x" * (1 << 20))
        self.assertNotEqual(p.returncode, 0)


class Masked(RunCase):
    def test_the_usual_disguises(self):
        out = self.out(["--env", "T=app/token", "--env", "P=app/db#password"],
                       'echo "a $T b"; printf %s "$T" | base64; printf %s "x$T" | base64; printf %s "$T" | od -An -tx1; echo "$P$T"; echo "$T" | rev')
        self.assertEqual(out.splitlines()[:2], ["a ***(token)*** b", "***(token)***"])
        self.assertTrue(out.splitlines()[2].startswith("eG***(token)***"))
        self.assertEqual(out.splitlines()[3:5], [" ***(token)***", "***(db#password)***"])

    def test_lines_and_errors(self):
        p = self.sh(["--env", "L=app/lines", "--mask", "[hidden]"], 'echo "$L" | tail -1; echo "$L" >&2; exit 7')
        self.assertEqual((p.returncode, p.stdout, p.stderr), (7, b"[hidden]\n", b"[hidden]\n"))

    def test_the_token_is_hidden(self):
        out = self.out(["--policy", "app", "--give-token"], 'echo "t=$COTTER_TOKEN"')
        self.assertEqual(out, "t=***(token)***\n")

    def test_both_streams_keep_their_order(self):
        p = subprocess.run([COTTER, "run", "--env", "T=app/token", "--", "sh", "-c", "for i in 1 2 3 4 5; do echo o$i; echo e$i >&2; done; echo $T >&2"], env=self.b.env,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(AS_ROOT.sub(b"", p.stdout).decode().split(), [x + str(i) for i in range(1, 6) for x in "oe"] + ["***(token)***"])

    def test_nothing_waits(self):
        p = subprocess.Popen([COTTER, "run", "--env", "T=app/token", "--", "sh", "-c", "printf 'ready? h'; read x; echo $x$T"], env=self.b.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        got = b""
        while len(got) < 8:
            self.assertTrue(select.select([p.stdout], [], [], 10)[0], got)
            got += os.read(p.stdout.fileno(), 100)
        self.assertEqual(got, b"ready? h")
        self.assertEqual(p.communicate(b"now\n")[0], b"now***(token)***\n")

    def test_short_ones_are_told(self):
        self.b.put("app/pin", "123")
        p = self.sh(["--env", "P=app/pin"], 'echo "$P"')
        self.assertEqual(p.stdout, b"123\n")
        self.assertIn(b"app/pin has 3 bytes", p.stderr)
        p = self.sh(["--env", "P=app/pin", "--mask-min", "1"], 'echo "$P"')
        self.assertEqual(p.stdout, b"***(pin)***\n")

    def test_a_flood(self):
        """At full speed, in constant memory."""
        p = subprocess.Popen([COTTER, "run", "--env", "T=app/token", "--", "sh", "-c", 'exec timeout 3 yes "build $T done"'], env=self.b.env, stdout=subprocess.PIPE)
        n, peak, carry = 0, 0, b""
        while True:
            chunk = os.read(p.stdout.fileno(), 1 << 20)
            if not chunk:
                break
            self.assertNotIn(b"correct", carry + chunk)
            self.assertNotIn(b"hunter", carry + chunk)
            carry = chunk[-40:]
            n += len(chunk)
            with open(f"/proc/{p.pid}/statm") as f:
                peak = max(peak, int(f.read().split()[1]) * 4096)
        p.wait()
        self.assertGreater(n, 1 << 20)
        # what a sanitizer keeps beside it does not count
        self.assertLess(peak, (24 << 20) if not os.environ.get("COTTER_SANITIZE") else (200 << 20))


class Transparent(RunCase):
    """Signals, stops, exit status, pipes, and what is left."""

    def popen(self, script, *options, **kw):
        kw.setdefault("stdout", subprocess.PIPE)
        # a shell that started the tests in its background has them ignored, as has nohup, and what is ignored stays that
        kw.setdefault("preexec_fn", lambda: [signal.signal(s, signal.SIG_DFL) for s in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)])
        return subprocess.Popen([COTTER, "run", "--env", "T=app/token", *options, "--", "sh", "-c", script], env=self.b.env, **kw)

    def test_exit_status(self):
        for script, status in (("exit 0", 0), ("exit 42", 42), ("kill -9 $$", -9), ("kill -TERM $$", -15), ("kill -SEGV $$", -11)):
            p = self.popen(script)
            p.communicate()
            self.assertEqual(p.returncode, status, script)
        self.assertEqual(self.go("--env", "T=app/token", "--", "no-such-command").returncode, 1)

    def test_signals_go_through(self):
        for name in ("TERM", "INT", "HUP", "USR1", "QUIT"):
            p = self.popen(f"trap 'echo got-{name}; exit 3' {name}; echo ready; while :; do sleep 0.05; done")
            self.assertEqual(p.stdout.readline(), b"ready\n")
            p.send_signal(getattr(signal, "SIG" + name))
            self.assertEqual(p.communicate()[0], f"got-{name}\n".encode())
            self.assertEqual(p.returncode, 3)
        # what was ignored stays that, as under nohup
        p = self.popen("kill -HUP $$; echo alive", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        self.assertEqual(p.communicate()[0], b"alive\n")

    def test_a_slow_reader_does_not_hold_signals(self):
        p = self.popen("trap 'exit 5' TERM; while :; do echo 0123456789012345678901234567890123456789; done")
        time.sleep(0.5)
        p.send_signal(signal.SIGTERM)
        out, _ = p.communicate(timeout=20)
        self.assertEqual(p.returncode, 5)

    def test_it_stops_and_goes_on(self):
        p = self.popen("echo $$; while :; do sleep 0.05; done")
        child = int(p.stdout.readline())
        state = lambda pid: open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0]
        os.kill(child, signal.SIGSTOP)
        wait_for("both to stop", lambda: state(p.pid) == "T" and state(child) == "T")
        p.send_signal(signal.SIGCONT)
        wait_for("both to go on", lambda: state(p.pid) != "T" and state(child) != "T")
        p.send_signal(signal.SIGTERM)
        p.communicate()
        self.assertEqual(p.returncode, -15)

    def test_nobody_reads(self):
        p = run("sh", "-c", f"{COTTER} run --env T=app/token -- sh -c 'yes $T' | head -1", env=self.b.env, timeout=20)
        self.assertEqual(p.returncode, 0)
        p = self.popen("echo ${T#hunter}; exit 3", stdout=subprocess.DEVNULL)
        self.assertEqual(p.wait(), 3)

    def test_kill_9(self):
        p = self.popen("echo $$; exec sleep 600", "--file", "F=app/db#password")
        child = int(p.stdout.readline())
        p.kill()
        p.wait()
        wait_for("the command's end", lambda: not os.path.exists(f"/proc/{child}"))

    def test_background_processes_do_not_hold_it(self):
        start = time.monotonic()
        p = self.popen("sleep 300 & echo $!")
        out, _ = p.communicate()
        self.assertLess(time.monotonic() - start, 60)
        try:
            os.kill(int(out), signal.SIGKILL)
        except ProcessLookupError:
            pass

    def test_background_processes_that_write_for_ever_do_not_hold_it(self):
        start = time.monotonic()
        self.assertEqual(self.sh(["--env", "T=app/token"], "yes & sleep 1; exit 3", timeout=60).returncode, 3)
        self.assertLess(time.monotonic() - start, 20)

    def test_what_cannot_be_written_is_told(self):
        with open("/dev/full", "w") as full:
            p = subprocess.run([COTTER, "run", "--env", "T=app/token", "--", "echo", "x"], env=self.b.env, stdout=full, stderr=subprocess.PIPE, timeout=60)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"No space left", p.stderr)

    def test_descriptors_are_inherited(self):
        r, w = os.pipe()
        p = self.popen(f"echo through >&{w}", pass_fds=[w])
        os.close(w)
        self.assertEqual(os.read(r, 100), b"through\n")
        os.close(r)
        self.assertEqual(p.wait(), 0)

    def test_refresh(self):
        self.b.put("app/turning", "the-first-value")
        for prefix in ((), NO_MOUNT):
            self.b.put("app/turning", "the-first-value")
            p = subprocess.Popen([*prefix, COTTER, "run", "--file", "F=app/turning", "--refresh", "1s", "--refresh-signal", "USR1", "--", "sh", "-c",
                                  'trap \'echo changed; echo "now $(cat "$F")"; wc -c < "$F"; exit 0\' USR1; cat "$F"; echo " there"; while :; do sleep 0.05; done'], env=self.b.env, stdout=subprocess.PIPE)
            self.assertEqual(p.stdout.readline(), b"***(turning)*** there\n")
            self.b.put("app/turning", "another-second-value")
            self.assertEqual(p.communicate(timeout=20)[0], b"changed\nnow ***(turning)***\n20\n")


class Terminal(RunCase):
    """With a terminal: the command has one, too."""

    def start(self, script, *options):
        pid, fd = pty.fork()
        if pid == 0:
            os.execve(COTTER, [COTTER, "run", "--env", "T=app/token", *options, "--", "bash", "--norc", "-c", script], self.b.env)
        self.addCleanup(lambda: self.end(pid, fd))
        self.pid, self.fd, self.seen = pid, fd, b""
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
        return pid

    def end(self, pid, fd):
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        os.close(fd)

    def until(self, text, seconds=20):
        end = time.monotonic() + seconds
        while text not in self.seen:
            self.assertTrue(select.select([self.fd], [], [], max(0, end - time.monotonic()))[0], self.seen)
            try:
                self.seen += os.read(self.fd, 4096)
            except OSError:
                break
        self.assertIn(text, self.seen)
        before, _, self.seen = self.seen.partition(text)
        return before

    def status(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def test_it_is_a_terminal(self):
        self.start('sleep 0.3; test -t 0 && test -t 1 && test -t 2 && stty size && echo "$T" && tty && exit 9')
        self.until(b"33 99\r\n")
        self.until(b"***(token)***\r\n")
        self.until(b"/dev/pts/")
        self.assertEqual(self.status(), 9)

    def test_keys_and_window(self):
        self.start('echo ready; read line; echo "got $line"; trap "stty size; exit 4" WINCH; echo again; while :; do sleep 0.05; done')
        self.until(b"ready")
        os.write(self.fd, b"typed\n")
        self.until(b"got typed")
        self.until(b"again")
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.until(b"40 120")
        self.assertEqual(self.status(), 4)

    def test_interrupt(self):
        self.start("trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done")
        self.until(b"ready")
        os.write(self.fd, b"\x03")
        self.until(b"caught")
        self.assertEqual(self.status(), 5)
        self.start("echo ready; exec sleep 600")
        self.until(b"ready")
        os.write(self.fd, b"\x03")
        self.assertEqual(self.status(), -signal.SIGINT)

    def test_a_signal_from_outside(self):
        self.start("trap 'echo caught; exit 6' TERM; echo ready; while :; do sleep 0.05; done")
        self.until(b"ready")
        os.kill(self.pid, signal.SIGTERM)
        self.until(b"caught")
        self.assertEqual(self.status(), 6)

    def test_the_last_words(self):
        for i in range(20):
            self.start(f"echo some lines; echo last-{i}")
            self.until(b"last-%d\r\n" % i)
            self.assertEqual(self.status(), 0)

    def test_it_is_suspended_by_a_shell(self):
        """Ctrl-Z under an interactive shell, fg, and the terminal's settings afterwards."""
        pid, fd = pty.fork()
        if pid == 0:
            os.execve("/bin/bash", ["bash", "--norc", "--noediting", "-i"], {**self.b.env, "PS1": "$ "})
        self.addCleanup(lambda: self.end(pid, fd))
        self.pid, self.fd, self.seen = pid, fd, b""
        self.until(b"$ ")
        os.write(fd, f"stty -a | md5sum; {COTTER} run --env T=app/token -- bash --norc -c 'echo re\"\"ady; while :; do read x; echo got-$x-$T; done'\n".encode())
        before = re.search(rb"[0-9a-f]{32}", self.until(b"ready\r\n")).group(0)
        os.write(fd, b"one\n")
        self.until(b"got-one-***(token)***")
        os.write(fd, b"\x1a")
        self.until(b"Stopped")
        self.until(b"$ ")
        os.write(fd, b"stty -a | md5sum; echo ba''ck\n")
        self.assertIn(before, self.until(b"back\r\n"))
        os.write(fd, b"fg\n")
        self.until(b"cotter run")
        time.sleep(0.3)
        os.write(fd, b"two\n")
        self.until(b"got-two-***(token)***")
        os.write(fd, b"\x03")
        self.until(b"$ ")
        os.write(fd, b"echo status=$?; stty -a | md5sum; echo do''ne\n")
        out = self.until(b"done\r\n")
        self.assertIn(b"status=130", out)
        self.assertIn(before, out)

    def test_it_runs_in_the_background_of_a_shell(self):
        pid, self.fd = pty.fork()
        self.seen = b""
        if pid == 0:
            os.execve("/bin/bash", ["bash", "--norc", "-i"], self.b.env | {"PS1": "shell> "})
        self.addCleanup(lambda: self.end(pid, self.fd))
        self.until(b"shell> ")
        os.write(self.fd, f"{COTTER} run --env T=app/token -- bash -c 'echo back$((1+1)); read x; echo got-$x; stty -a | grep -q icanon && echo sane' &\n".encode())
        self.until(b"back2")
        os.write(self.fd, b"echo mine$((3+3))\n")  # the keys are the shell's
        self.until(b"mine6")
        os.write(self.fd, b"fg\n")
        time.sleep(1)
        os.write(self.fd, b"keys\n")
        self.until(b"got-keys")
        self.until(b"sane")

    def test_a_command_that_reads_no_keys_takes_signals(self):
        self.start("stty raw -echo; trap 'echo term; exit 9' TERM; echo ready; while :; do sleep 0.1; done")
        self.until(b"ready")
        end = time.monotonic() + 20
        os.set_blocking(self.fd, False)
        for _ in range(400):  # more than the terminals take
            try:
                os.write(self.fd, b"k" * 1000)
            except BlockingIOError:
                time.sleep(0.01)
        os.set_blocking(self.fd, True)
        os.kill(self.pid, signal.SIGTERM)
        self.until(b"term")
        self.assertLess(time.monotonic(), end)

    def test_kill_9_leaves_no_job(self):
        self.start("echo pid=$$.; exec sleep 600")
        self.until(b"pid=")
        child = int(self.until(b"."))
        os.kill(self.pid, signal.SIGKILL)
        wait_for("the command's end", lambda: not os.path.exists(f"/proc/{child}"))


class Cotter(Case):
    """The command itself, without a broker."""

    def test_a_configuration_that_others_may_write_leads_nowhere(self):
        config, path = os.path.join(self.dir, "c.yaml"), os.path.join(self.dir, "evil.sock")
        with open(config, "w") as f:
            f.write(f"socket: {path}\n")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(5)
            listener.settimeout(0.3)
            env = clean_env(COTTER_CONFIG=config, COTTER_TOKEN="hvs.secret")
            os.chmod(config, 0o666)
            p = run(COTTER, "get", "a/b", env=env)
            self.assertEqual(p.returncode, 6)
            self.assertIn(b"not be writable by others: it is passed over", p.stderr)
            self.assertRaises(TimeoutError, listener.accept)
            os.chmod(config, 0o600)
            asker = subprocess.Popen([COTTER, "get", "a/b"], env=env, stderr=subprocess.DEVNULL)
            listener.accept()[0].close()
            self.assertEqual(asker.wait(10), 6)
        with open(config, "w") as f:
            f.write("socket: [unfinished\n")
        self.assertIn(b"not YAML", run(COTTER, "get", "a/b", env=env).stderr)

    def test_where_cotter_local_is(self):
        top = os.path.join(self.dir, "moved")
        os.makedirs(os.path.join(top, "bin"))
        os.makedirs(os.path.join(top, "libexec", "cotter"))
        moved = os.path.join(top, "bin", "cotter")
        shutil.copy(COTTER, moved)
        if not os.path.exists("/usr/libexec/cotter/cotter-local"):
            p = run(moved, "open", "/nonexistent")
            self.assertEqual(p.returncode, 127)
            self.assertIn(b"cotter-local", p.stderr)
        self.assertIn(b"usage: cotter open", run(moved, "open", "--help", check=True).stdout)
        shutil.copy(COTTER + "-local", os.path.join(top, "libexec", "cotter"))
        p = run(moved, "open", "/nonexistent")
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"/nonexistent", p.stderr)


if __name__ == "__main__":
    unittest.main()
