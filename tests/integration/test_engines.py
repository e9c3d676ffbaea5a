"""Credentials made when they are asked for: leases, and what ends them. A real PostgreSQL server, by the engine that cotter has for it; programs that misbehave."""
import glob
import json
import os
import pwd
import signal
import subprocess
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

import hvac

from harness import BUILD, Case, free_port_pair, run, wait_for
from peers import Session, ask, connect, request
from test_sign import hvac_client

PG = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
ENGINE = os.path.join(BUILD, "tools", "cotter-engine-postgresql")

POLICY = """\
  app:
    - path: db/creds/*
      allow: [read]
    - path: odd/creds/*
      allow: [read]
"""


class Postgres:
    """A server of the test's own; it refuses to run as root."""

    def __init__(self, directory):
        self.dir, self.port = directory, free_port_pair()
        self.user = []
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(directory, owner.pw_uid, owner.pw_gid)
            os.chmod(os.path.dirname(directory), 0o755)
            self.user = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
        data, password = os.path.join(directory, "data"), os.path.join(directory, "password")
        with open(password, "w") as f:
            f.write("admin-password\n")
        os.chmod(password, 0o644)
        run(*self.user, f"{PG[-1]}/initdb", "-D", data, "-U", "admin", "--auth=scram-sha-256", f"--pwfile={password}", "-N", check=True, cwd=directory)
        self.process = subprocess.Popen([*self.user, f"{PG[-1]}/postgres", "-D", data, "-p", str(self.port), "-k", directory, "-h", "127.0.0.1", "-F",
                                         "-c", "log_statement=all"], stdout=subprocess.DEVNULL, stderr=open(os.path.join(directory, "log"), "w"), cwd=directory)
        wait_for("PostgreSQL", lambda: self.sql("SELECT 1").returncode == 0)

    def sql(self, text, user="admin", password="admin-password"):
        env = {"PATH": os.environ["PATH"], "PGPASSWORD": password, "PGCONNECT_TIMEOUT": "5"}
        return run("psql", "-XAtq", "-h", "127.0.0.1", "-p", str(self.port), "-U", user, "-d", "postgres", "-c", text, env=env)

    def roles(self):
        return self.sql("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'").stdout.decode().split()

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)


class EngineCase(Case):
    @classmethod
    def make_broker(cls, engines):
        cls.hsm = cls.softhsm()
        cls.b = cls.broker(hsm=cls.hsm, edit=lambda text: text.replace("require_cgroup: true", "require_cgroup: false") + POLICY + engines)
        cls.token = cls.b.token("--policy", "app", "--ttl", "2h")

    def ask(self, method, path, body=None, token=None):
        return ask(self.b.socket, method, path, token or self.token, body)

    def operate(self, method, path, body=None):
        return ask(self.b.operator_socket, method, path, None, body)


@unittest.skipUnless(PG and os.path.exists(ENGINE), "postgresql or libpq-dev is not installed: tests/run.sh does it")
class Database(EngineCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.pg = Postgres(cls.sub("pg"))
        cls.stops.append(cls.pg.stop)
        cls.make_broker(f"""\
engines:
  db:
    program: {ENGINE}
    secret: engines/db
    readable: [{BUILD}]
    roles:
      readonly:
        ttl: 1h
        max_ttl: 4h
        parameters:
          creation_statements:
            - CREATE ROLE "{{{{name}}}}" LOGIN PASSWORD '{{{{password}}}}' VALID UNTIL '{{{{expiration}}}}'
            - GRANT pg_read_all_data TO "{{{{name}}}}"
      short: {{ttl: 2s, max_ttl: 4s}}
      broken:
        parameters: {{creation_statements: ["CREATE ROLE {{{{nosuch}}}}"]}}
      wrong:
        parameters: {{creation_statements: ["CREATE ROLE \\"{{{{name}}}}\\"", "GRANT nosuch TO \\"{{{{name}}}}\\""]}}
""")
        cls.set_secret()
        cls.pg.sql("CREATE TABLE t AS SELECT 42 AS x")

    @classmethod
    def set_secret(cls, **change):
        config = {"host": "127.0.0.1", "port": str(cls.pg.port), "dbname": "postgres", "user": "admin", "password": "admin-password", **change}
        cls.b.cli("put", "engines/db", "--data", "-", stdin=json.dumps(config), check=True)

    def creds(self, role="readonly", token=None):
        status, reply = self.ask("GET", f"db/creds/{role}", token=token)
        self.assertEqual(status, 200, reply)
        return reply

    def works(self, reply):
        return self.pg.sql("SELECT x FROM t", reply["data"]["username"], reply["data"]["password"]).stdout == b"42\n"

    def gone(self, reply):
        name = reply["data"]["username"]
        wait_for("the role's end", lambda: name not in self.pg.roles())

    def test_hvac(self):
        client = hvac_client(self.b.socket, self.token)
        reply = client.secrets.database.generate_credentials("readonly", mount_point="db")
        self.assertEqual([reply["lease_duration"], reply["renewable"]], [3600, True])
        self.assertRegex(reply["lease_id"], "^db/creds/readonly/[0-9a-f]{32}$")
        self.assertTrue(self.works(reply))
        self.assertFalse(self.pg.sql("DROP TABLE t", reply["data"]["username"], reply["data"]["password"]).returncode == 0)
        lease = client.sys.read_lease(reply["lease_id"])["data"]
        self.assertEqual([lease["id"], lease["ttl"] > 3590, lease["last_renewal"]], [reply["lease_id"], True, None])
        renewed = client.sys.renew_lease(reply["lease_id"], increment=7200)
        self.assertEqual([renewed["lease_id"], renewed["lease_duration"]], [reply["lease_id"], 7200])
        self.assertIn(client.sys.renew_lease(reply["lease_id"], increment=10 ** 6)["lease_duration"], range(14380, 14401))
        self.assertIsNotNone(client.sys.read_lease(reply["lease_id"])["data"]["last_renewal"])
        client.sys.revoke_lease(reply["lease_id"])
        self.assertNotIn(reply["data"]["username"], self.pg.roles())
        with self.assertRaises(hvac.exceptions.InvalidRequest):
            client.sys.read_lease(reply["lease_id"])
        # neither password was in the server's log of statements, nor anywhere in the store
        with open(os.path.join(self.pg.dir, "log")) as f:
            self.assertNotIn(reply["data"]["password"], f.read())
        for path in glob.glob(f"{self.b.state}/**", recursive=True):
            if os.path.isfile(path):
                with open(path, "rb") as f:
                    self.assertNotIn(reply["data"]["password"].encode(), f.read(), path)
        self.assertIn("why=lease_db/creds/readonly/", self.b.audit())
        self.assertIn("ev=lease.end", self.b.audit())

    def test_they_end_with_their_token(self):
        token = self.b.token("--policy", "app")
        reply = self.creds(token=token)
        self.assertTrue(self.works(reply))
        self.assertEqual(self.ask("POST", "auth/token/revoke-self", {}, token)[0], 204)
        self.gone(reply)

    def test_they_end_with_their_job(self):
        p = self.b.cli("run", "--policy", "app", "--give-token", "--", "sh", "-c",
                       f"curl -sS --unix-socket {self.b.socket} -H \"X-Vault-Token: $COTTER_TOKEN\" http://localhost/v1/db/creds/readonly")
        reply = json.loads(p.stdout)
        self.assertIn("username", reply["data"])
        self.gone(reply)

    def test_they_end_at_their_time(self):
        reply = self.creds("short")
        self.assertEqual(reply["lease_duration"], 2)
        self.gone(reply)

    def test_across_restarts(self):
        token = self.b.token("--policy", "app")
        kept, lost = self.creds(), self.creds(token=token)
        accessor = self.ask("GET", "auth/token/lookup-self", token=token)[1]["data"]["accessor"]
        self.pg.process.send_signal(signal.SIGSTOP)  # the server hangs: the end is tried again, after a restart, too
        try:
            self.b.cli("token", "revoke", accessor, check=True)
            time.sleep(0.5)
            self.b.stop(signal.SIGKILL)
            self.b.start()
        finally:
            self.pg.process.send_signal(signal.SIGCONT)
        self.gone(lost)
        self.assertTrue(self.works(kept))
        self.assertEqual(self.ask("POST", "sys/leases/revoke", {"lease_id": kept["lease_id"]})[0], 204)
        self.assertNotIn(kept["data"]["username"], self.pg.roles())

    def test_killed_while_one_is_made(self):
        """At whatever moment the broker dies: no role stays that nobody was told of."""
        for delay in (0, 0.002, 0.005, 0.01, 0.02, 0.05):
            with connect(self.b.socket) as s:
                s.sendall(f"GET /v1/db/creds/readonly HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {self.token}\r\n\r\n".encode())
                time.sleep(delay)
                self.b.stop(signal.SIGKILL)
            self.b.start()
        def settled():
            listed = {k for k in (self.operate("LIST", "sys/leases/lookup/db/creds/readonly")[1] or {}).get("data", {}).get("keys", [])}
            live = {k for k in listed if self.operate("POST", "sys/leases/lookup", {"lease_id": f"db/creds/readonly/{k}"})[0] == 200}
            return listed == live and {r.split("-")[-1] for r in self.pg.roles() if r.startswith("v-readonly-")} == live
        wait_for("the end of those", settled, 30)

    def test_a_client_that_leaves(self):
        before = set(self.pg.roles())
        for _ in range(3):
            with connect(self.b.socket) as s:
                s.sendall(f"GET /v1/db/creds/readonly HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {self.token}\r\n\r\n".encode())
        wait_for("the end of what nobody waits for", lambda: set(self.pg.roles()) <= before, 20)

    def test_whose_they_are(self):
        reply = self.creds()
        other = self.b.token("--policy", "app")
        for path in ("renew", "revoke", "lookup"):
            self.assertEqual(self.ask("POST", f"sys/leases/{path}", {"lease_id": reply["lease_id"]}, other)[1]["errors"], ["invalid lease"], path)
            for bad in ("", "x", 5, reply["lease_id"][:-1], reply["lease_id"] + "0"):
                self.assertEqual(self.ask("POST", f"sys/leases/{path}", {"lease_id": bad})[0], 400, (path, bad))
        self.assertEqual(self.ask("LIST", "sys/leases/lookup/db")[0], 403)
        self.assertEqual(self.ask("POST", "sys/leases/revoke-prefix/db", {})[0], 403)
        self.assertEqual(self.ask("GET", "db/creds/readonly", token=self.b.token("--policy", "release"))[0], 403)
        self.assertIn(reply["lease_id"][len("db/"):], self.operate("LIST", "sys/leases/lookup/db")[1]["data"]["keys"])
        self.assertEqual(self.operate("POST", "sys/leases/revoke-prefix/db/creds/readonly", {})[0], 204)
        self.gone(reply)
        wait_for("their end", lambda: self.operate("LIST", "sys/leases/lookup/db/creds/readonly")[0] == 404)

    def test_what_the_server_refuses(self):
        before = set(self.pg.roles())
        for role in ("broken", "wrong"):
            status, reply = self.ask("GET", f"db/creds/{role}")
            self.assertEqual((status, reply["errors"]), (500, ["the engine could not do it: the audit log says why"]))
        self.assertIn("statement_2_of_creation_statements:_the_server_refuses,_SQLSTATE_42704", self.b.audit())
        self.assertEqual(set(self.pg.roles()), before)
        self.assertEqual(self.ask("GET", "db/creds/nosuch")[0], 400)
        self.assertEqual(self.ask("GET", "db/other")[0], 403)
        self.set_secret(password="wrong")
        try:
            self.assertEqual(self.ask("GET", "db/creds/readonly")[0], 500)
        finally:
            self.set_secret()
        self.assertTrue(self.works(self.creds()))

    def test_what_it_owns_elsewhere_does_not_keep_it(self):
        reply = self.creds()
        name, password = reply["data"]["username"], reply["data"]["password"]
        env = {"PATH": os.environ["PATH"], "PGPASSWORD": password}
        run("psql", "-XAtq", "-h", "127.0.0.1", "-p", str(self.pg.port), "-U", name, "-d", "template1", "-c", "SELECT lo_create(0)", env=env, check=True)
        self.assertEqual(self.ask("POST", "sys/leases/revoke", {"lease_id": reply["lease_id"]})[0], 204)
        self.assertNotIn(name, self.pg.roles())

    def test_what_cannot_be_dropped_cannot_log_in(self):
        reply = self.creds()
        name, env = reply["data"]["username"], {"PATH": os.environ["PATH"], "PGPASSWORD": reply["data"]["password"]}
        as_role = ["psql", "-XAtq", "-h", "127.0.0.1", "-p", str(self.pg.port), "-U", name]
        # it owns something where nobody can connect any more
        run(*as_role, "-d", "template1", "-c", "SELECT lo_create(0)", env=env, check=True)
        self.pg.sql("UPDATE pg_database SET datallowconn = false WHERE datname = 'template1'")
        try:
            session = subprocess.Popen([*as_role, "-d", "postgres", "-c", "SELECT pg_sleep(600)"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_for("a session", lambda: self.pg.sql(f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{name}'").stdout == b"1\n")
            self.assertEqual(self.ask("POST", "sys/leases/revoke", {"lease_id": reply["lease_id"]})[0], 500)
            self.assertNotEqual(session.wait(20), 0)
            self.assertIn(name, self.pg.roles())
            self.assertFalse(self.works(reply))
        finally:
            self.pg.sql("UPDATE pg_database SET datallowconn = true WHERE datname = 'template1'")
        self.gone(reply)

    def test_wrapped(self):
        with connect(self.b.socket) as s:
            status, reply = request(s, "GET", "db/creds/readonly", self.token, None, ["X-Vault-Wrap-TTL: 60"])
        self.assertEqual(status, 200)
        got = self.ask("POST", "sys/wrapping/unwrap", {"token": reply["wrap_info"]["token"]})[1]
        self.assertTrue(self.works(got))
        self.assertTrue(got["lease_id"])


ODD = """#!/usr/bin/python3
import json, os, sys, time
said = json.load(sys.stdin)
role = said["role"]
state = {state!r}
def log(text):
    with open(os.path.join(state, "log"), "a") as f:
        f.write(text + "\\n")
log(json.dumps({{k: said[k] for k in ("verb", "lease", "role", "parameters", "config")}}))
if said["verb"] == "create" and role == "garbage":
    print("not json")
elif said["verb"] == "create" and role == "silent":
    pass
elif said["verb"] == "create" and role == "flood":
    while True:
        sys.stdout.write("x" * 65536)
elif said["verb"] == "create" and role == "crash":
    os.kill(os.getpid(), 11)
elif said["verb"] == "create" and role == "slow":
    time.sleep(1.5)
    print(json.dumps({{"data": {{"n": 1}}}}))
elif said["verb"] == "revoke" and role == "oddity":
    n = len([1 for line in open(os.path.join(state, "log")) if said["lease"] in line])
    print(json.dumps([{{"error": {{"code": 5}}}}, {{"error": None}}, {{"error": True}}, {{}}][min(n - 2, 3)]))
elif said["verb"] == "create" and role == "lingers":
    if os.fork() == 0:
        os.close(0), os.close(1)
        time.sleep(600)
        os._exit(0)
    print(json.dumps({{"data": {{"n": 1}}}}))
elif said["verb"] == "create" and role == "nodata":
    print("{{}}")
elif said["verb"] == "create" and role == "peek":
    def tries(path):
        try:
            open(path).close()
            return "open"
        except OSError as e:
            return e.strerror
    fds = sorted(os.listdir("/proc/self/fd"))
    print(json.dumps({{"data": {{"env": sorted(os.environ), "shadow": tries("/etc/shadow"), "store": tries({store!r}), "config": tries({config!r}), "n_fds": len(fds)}}}}))
elif said["verb"] == "revoke" and os.path.exists(os.path.join(state, "refuse")):
    print(json.dumps({{"error": "not \\u0007 now"}}))
else:
    print(json.dumps({{"data": {{"n": 1}}}}))
"""


class Odd(EngineCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.state = cls.sub("state")
        cls.program = os.path.join(cls.dir, "odd")
        roles = "".join(f"      {r}: {{parameters: {{a: [b, c], d: e}}}}\n" for r in ("good", "garbage", "silent", "flood", "crash", "nodata", "peek", "slow", "oddity", "lingers"))
        cls.make_broker(f"engines:\n  odd:\n    program: {cls.program}\n    writable: [{cls.state}]\n    roles:\n{roles}")
        with open(cls.program, "w") as f:
            f.write(ODD.format(state=cls.state, store=os.path.join(cls.b.state, "store.db"), config=cls.b.config))
        os.chmod(cls.program, 0o755)

    def log(self):
        with open(os.path.join(self.state, "log")) as f:
            return [json.loads(line) for line in f]

    def test_what_it_is_told(self):
        status, reply = self.ask("GET", "odd/creds/good")
        self.assertEqual((status, reply["data"]), (200, {"n": 1}))
        self.assertEqual(self.ask("POST", "sys/leases/revoke/" + reply["lease_id"], {})[0], 204)
        lease = reply["lease_id"].split("/")[-1]
        told = [x for x in self.log() if x["lease"] == lease]
        self.assertEqual([x["verb"] for x in told], ["create", "revoke"])
        self.assertEqual([told[0]["parameters"], told[0]["config"]], [{"a": ["b", "c"], "d": ["e"]}, None])

    def test_programs_that_misbehave(self):
        for role in ("garbage", "silent", "crash", "nodata", "flood"):
            status, reply = self.ask("GET", f"odd/creds/{role}")
            self.assertEqual(status, 500, role)
            lease = next(x["lease"] for x in self.log() if x["role"] == role)
            wait_for("its end", lambda: any(x["verb"] == "revoke" and x["lease"] == lease for x in self.log()), 20)
        self.assertIsNone(self.b.process.poll())
        wait_for("the flood's end", lambda: run("pgrep", "-f", self.program).returncode != 0)

    def verbs(self, lease):
        return [x["verb"] for x in self.log() if x["lease"] == lease.split("/")[-1]]

    def test_an_end_while_it_is_made(self):
        got = []
        t = threading.Thread(target=lambda: got.append(self.ask("GET", "odd/creds/slow")))
        t.start()
        wait_for("its start", lambda: os.path.exists(os.path.join(self.state, "log")) and any(x["role"] == "slow" for x in self.log()))
        lease = next(x["lease"] for x in self.log() if x["role"] == "slow")
        self.assertEqual(self.operate("POST", "sys/leases/revoke-prefix/odd/creds/slow", {})[0], 204)
        t.join()
        self.assertEqual(got[0][0], 500)
        wait_for("its end", lambda: "revoke" in self.verbs(lease))

    def test_errors_that_are_no_text(self):
        reply = self.ask("GET", "odd/creds/oddity")[1]
        self.assertEqual(self.ask("POST", "sys/leases/revoke", {"lease_id": reply["lease_id"]})[0], 500)
        wait_for("the end", lambda: self.verbs(reply["lease_id"]).count("revoke") == 4, 20)

    def test_nothing_is_left_running(self):
        self.assertEqual(self.ask("GET", "odd/creds/lingers")[0], 200)
        wait_for("the end of what lingers", lambda: run("pgrep", "-f", self.program).returncode != 0)

    def test_what_could_not_be_wrapped_is_ended(self):
        """Somebody takes the last place while the engine is at it; and where there is none, nothing is made."""
        self.ask("GET", "odd/creds/good")
        before, head = len(self.log()), ["X-Vault-Wrap-TTL: 60"]
        with Session(self.b.operator_socket) as s, ThreadPoolExecutor() as pool:
            while (reply := s.request("POST", "sys/wrapping/wrap", None, {"x": 1}, head))[0] == 200:
                last = reply[1]["wrap_info"]["token"]
            self.assertEqual(self.operate("POST", "sys/wrapping/unwrap", {"token": last})[0], 200)
            slow = connect(self.b.operator_socket)
            self.addCleanup(slow.close)
            answer = pool.submit(request, slow, "GET", "odd/creds/slow", None, None, head)
            wait_for("the engine", lambda: len(self.log()) > before)
            self.assertEqual(s.request("POST", "sys/wrapping/wrap", None, {"x": 1}, head)[0], 200)
            self.assertEqual(answer.result()[0], 429)
        lease = next(x["lease"] for x in self.log()[before:] if x["verb"] == "create")
        wait_for("its end", lambda: "revoke" in self.verbs(lease))
        before = len(self.log())
        with connect(self.b.socket) as s:
            self.assertEqual(request(s, "GET", "odd/creds/good", self.token, None, head)[0], 429)
        self.assertEqual(len(self.log()), before)

    def test_one_uid_does_not_take_all_places(self):
        seen = []
        threads = [threading.Thread(target=lambda: seen.append(self.ask("GET", "odd/creds/slow")[0])) for _ in range(12)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual((seen.count(200), seen.count(429)), (4, 8))

    def test_what_it_can_see(self):
        data = self.ask("GET", "odd/creds/peek")[1]["data"]
        self.assertLessEqual(set(data["env"]), {"PATH", "LC_CTYPE"})
        if os.environ.get("COTTER_SANITIZE"):
            self.skipTest("a build with sanitizers has no Landlock")
        self.assertEqual([data["shadow"], data["store"], data["config"]], ["Permission denied"] * 3)
        self.assertLessEqual(data["n_fds"], 5)

    def test_an_end_that_is_refused_is_tried_again(self):
        reply = self.ask("GET", "odd/creds/good")[1]
        marker = os.path.join(self.state, "refuse")
        open(marker, "w").close()
        self.assertEqual(self.ask("POST", "sys/leases/revoke", {"lease_id": reply["lease_id"]})[0], 500)
        self.assertIn("why=not_?_now", self.b.audit())
        os.remove(marker)
        lease = reply["lease_id"].split("/")[-1]
        wait_for("another try", lambda: [x["verb"] for x in self.log() if x["lease"] == lease].count("revoke") >= 2, 20)
        # one that can never be ended is forgotten by an operator
        reply = self.ask("GET", "odd/creds/good")[1]
        open(marker, "w").close()
        self.ask("POST", "sys/leases/revoke", {"lease_id": reply["lease_id"]})
        wait_for("room", lambda: self.operate("POST", "sys/leases/revoke-force/odd/creds/good", {})[0] == 204)
        os.remove(marker)

    def test_bad_configuration(self):
        for old, new, why in (("    roles:\n      good", "    rolls:\n      good", "rolls"), (f"program: {self.program}", "program: odd", "absolute path"),
                              ("  odd:\n    program", "  secret:\n    program", "within each other"), ("  odd:\n    program", "  a/b:\n    program", "expected a name"),
                              ("good: {", "good: {ttl: 0s, ", "ttl is from 1s")):
            with open(self.b.config) as f:
                text = f.read()
            self.assertIn(old, text)
            try:
                self.b.edit(lambda text: text.replace(old, new))
                p = self.b.cli("policy", "lint")
                self.assertNotEqual(p.returncode, 0, new)
                self.assertIn(why, p.stderr.decode())
            finally:
                self.b.edit(lambda _: text)


if __name__ == "__main__":
    unittest.main()
