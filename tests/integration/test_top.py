"""What people and their monitoring see: what a job holds, cotter top, cotter status, sys/metrics."""
import json
import os
import signal
import sqlite3
import unittest

from harness import wait_for
from peers import as_peer, ask
from test_jobs import JOB, NO_CGROUP, JobCase


class TopCase(JobCase):
    def started(self, *args):
        """(token, id, cgroup, process) of a job."""
        cg = self.cgroup()
        leader = self.process(uid=JOB, cgroup=cg)
        return *self.job(leader.pid, *args), cg, leader

    def shown(self, job):
        status, reply = self.b.curl(f"cotter/jobs/{job}", socket_path=self.b.operator_socket)
        return reply["data"] if status == 200 else status

    def received(self, job):
        return [(x["path"], x["version"]) for x in self.shown(job)["received"]]

    def listed(self, job):
        reply = self.b.curl("cotter/jobs", socket_path=self.b.operator_socket)[1]["data"]["jobs"]
        return next(j for j in reply if j["job"] == job)

    def rows(self, job):
        with sqlite3.connect(f"file:{self.b.state}/store.db?mode=ro", uri=True) as db:
            return sorted(db.execute("SELECT path, version FROM received WHERE job = ?", (bytes.fromhex(job),)))


@unittest.skipIf(NO_CGROUP, NO_CGROUP)
class Received(TopCase):
    @staticmethod
    def configure(text):
        return text + "  many:\n    - path: many/*\n      allow: [get]\n"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.b.put("release/other", "1")
        cls.b.put("release/other", "2")

    def test_nothing_at_first(self):
        _, job, _, _ = self.started()
        self.assertEqual(self.received(job), [])
        self.assertEqual(self.listed(job)["n_received"], 0)

    def test_what_was_given_and_nothing_else(self):
        token, job, cg, _ = self.started()
        get = lambda path, method="GET": as_peer(ask, self.b.socket, method, path, token, uid=JOB, cgroup=cg)[0]
        self.assertEqual(get("secret/data/release/npm-token"), 200)
        self.assertEqual(get("secret/data/build/a/token"), 403)       # denied
        self.assertEqual(get("secret/data/release/none"), 404)        # not there
        self.assertEqual(get("secret/metadata/release", "LIST"), 200)  # names, not values
        self.assertEqual(get("secret/subkeys/release/other"), 200)
        self.assertEqual(self.received(job), [("release/npm-token", 1)])
        self.assertEqual(get("secret/data/release/other?version=1"), 200)
        self.assertEqual(get("secret/data/release/other"), 200)
        self.assertEqual(self.received(job), [("release/other", 2), ("release/other", 1), ("release/npm-token", 1)])
        self.assertEqual(get("secret/data/release/npm-token"), 200)   # again: it is the latest, and there once
        self.assertEqual(self.received(job)[0], ("release/npm-token", 1))
        listed = self.listed(job)
        self.assertEqual((len(listed["received"]), listed["n_received"], listed["received_more"]), (3, 3, 0))

    def test_each_job_its_own(self):
        first, second = self.started(), self.started()
        as_peer(ask, self.b.socket, "GET", "secret/data/release/other", first[0], uid=JOB, cgroup=first[2])
        self.assertEqual(self.received(first[1]), [("release/other", 2)])
        self.assertEqual(self.received(second[1]), [])

    def test_a_deleted_version_gives_nothing(self):
        self.b.put("release/gone", "x")
        self.b.cli("rm", "release/gone", check=True)
        token, job, cg, _ = self.started()
        self.assertEqual(as_peer(ask, self.b.socket, "GET", "secret/data/release/gone", token, uid=JOB, cgroup=cg)[0], 404)
        self.assertEqual(self.received(job), [])

    def test_more_than_there_is_room_for(self):
        """64 by name, what is beyond is counted; a restart remembers both, and the store's rows go with the job."""
        token, job, cg, leader = self.started("--policy", "many")
        for i in range(66):
            self.b.put(f"many/s{i}", "x")
        for _ in range(2):
            for i in range(66):
                self.assertEqual(as_peer(ask, self.b.socket, "GET", f"secret/data/many/s{i}", token, uid=JOB, cgroup=cg)[0], 200)
        shown = self.shown(job)
        self.assertEqual((shown["n_received"], shown["received_more"]), (64, 4))
        self.assertEqual(self.received(job)[0], ("many/s63", 1))
        wait_for("the rows", lambda: len(self.rows(job)) == 65)
        self.b.stop(signal.SIGKILL)
        self.b.start()
        shown = self.shown(job)
        self.assertEqual((shown["n_received"], shown["received_more"]), (64, 1))
        self.assertEqual(set(self.received(job)), {(f"many/s{i}", 1) for i in range(64)})
        leader.end()
        wait_for("the job's end", lambda: self.shown(job) == 404)
        self.assertEqual(self.rows(job), [])

    def test_a_row_of_another_hand_counts_for_nothing(self):
        token, job, cg, _ = self.started()
        self.assertEqual(as_peer(ask, self.b.socket, "GET", "secret/data/release/npm-token", token, uid=JOB, cgroup=cg)[0], 200)
        wait_for("the row", lambda: len(self.rows(job)) == 1)
        self.b.stop()
        with sqlite3.connect(f"{self.b.state}/store.db") as db:
            db.execute("INSERT INTO received SELECT job, 'release/forged', version, mac FROM received WHERE job = ?", (bytes.fromhex(job),))
        self.b.start()
        self.assertEqual(self.received(job), [("release/npm-token", 1)])

    def test_an_orderly_stop_writes_the_last(self):
        token, job, cg, _ = self.started()
        self.assertEqual(as_peer(ask, self.b.socket, "GET", "secret/data/release/other", token, uid=JOB, cgroup=cg)[0], 200)
        self.b.stop()
        self.assertEqual(self.rows(job), [("release/other", 2)])
        self.b.start()

    def test_not_for_jobs(self):
        token, job, cg, _ = self.started()
        for path in ("cotter/jobs", f"cotter/jobs/{job}"):
            self.assertEqual(as_peer(ask, self.b.socket, "GET", path, token, uid=JOB, cgroup=cg)[0], 403)
        self.assertEqual(self.shown("0" * 16), 404)


if __name__ == "__main__":
    unittest.main(verbosity=2)
