"""quorumctl prints what etcdctl prints: the same command of both against the same cluster."""
import json
import os
import re
import subprocess

from harness import BUILD, TestCase, wait_for

QUORUMCTL = os.path.join(BUILD, "ctl", "quorumctl")

# Each is asked twice, and changes nothing that the other one's answer shows.
QUESTIONS = [
    ["alarm", "list"],
    ["alarm", "list", "-w", "json"],
    ["alarm", "disarm"],
    ["defrag"],
    ["compaction", "1000"],
    ["endpoint", "health"],
    ["endpoint", "health", "-w", "json"],
    ["endpoint", "health", "-w", "table"],
    ["endpoint", "hashkv"],
    ["endpoint", "hashkv", "-w", "json"],
    ["endpoint", "hashkv", "-w", "table"],
    ["endpoint", "hashkv", "-w", "fields"],
    ["endpoint", "hashkv", "--rev=2"],
    ["endpoint", "status"],
    ["endpoint", "status", "-w", "json"],
    ["endpoint", "status", "-w", "table"],
    ["endpoint", "status", "-w", "fields"],
    ["endpoint", "status", "--cluster"],
    ["member", "list"],
    ["member", "list", "-w", "json"],
    ["member", "list", "-w", "table"],
    ["member", "list", "-w", "fields"],
    ["member", "remove", "abcd"],
    ["member", "promote", "abcd"],
]


def normal(text):
    """Takes out what differs between two askings: times, who answered, the log lines of etcdctl's
    library, padding."""
    text = "\n".join(line for line in text.splitlines() if not line.startswith('{"level"'))
    text = re.sub(r"[\d.]+(ns|µs|ms|s)\b", "TIME", text)
    text = re.sub(r'"member_id":\d+', '"member_id":N', text)  # of whichever member was asked
    return re.sub(r"[ -]+", " ", text)


class Quorumctl(TestCase):
    def ctl(self, *args):
        return subprocess.run([QUORUMCTL, "--endpoints", ",".join(self.made.endpoints), *args],
                              capture_output=True, text=True, timeout=60, check=False)

    def same(self, args):
        mine, theirs = self.ctl(*args), self.made.ctl(*args, check=False)
        self.assertEqual((mine.returncode == 0, normal(mine.stdout), normal(mine.stderr)),
                         (theirs.returncode == 0, normal(theirs.stdout), normal(theirs.stderr)), args)
        return mine.stdout

    def test_same_answers(self):
        self.made = self.cluster(1)
        for i in range(5):
            self.made.ctl("put", f"k{i}", "v")
        for args in QUESTIONS:
            with self.subTest(" ".join(args)):
                self.same(args)

    def test_same_answers_of_etcd(self):
        self.made = self.etcd()
        self.made.ctl("put", "k", "v")
        for args in QUESTIONS:
            with self.subTest(" ".join(args)):
                self.same(args)

    def test_alarms(self):
        self.made = self.cluster(1, flags=["--quota-backend-bytes", "200000"])
        wait_for(lambda: self.made.ctl("put", "k", "x" * 60000, check=False).returncode != 0,
                 "the quota to be reached")
        self.assertIn("alarm:NOSPACE", self.same(["alarm", "list"]))
        self.assertIn('"alarm":1', self.same(["alarm", "list", "-w", "json"]))
        self.same(["endpoint", "status"])  # its table breaks such long lines, ours does not
        revision = json.loads(self.made.ctl("get", "k", "-w", "json").stdout)["header"]["revision"]
        done = self.ctl("compaction", str(revision), "--physical")
        self.assertEqual(done.stdout, f"compacted revision {revision}\n")
        self.same(["compaction", str(revision)])
        self.assertEqual(self.ctl("defrag").returncode, 0)
        self.assertIn("alarm:NOSPACE", self.ctl("alarm", "disarm").stdout)
        self.assertEqual(self.same(["alarm", "list"]), "")
        self.made.ctl("put", "k", "y")

    def test_members(self):
        self.made = self.cluster(3)
        wait_for(lambda: self.made.ctl("member", "list").stdout.count(", started, ") == 3, "three names")
        self.same(["member", "list", "-w", "table"])
        added = self.ctl("member", "add", "m4", "--peer-urls=http://127.0.0.1:9,http://127.0.0.1:10",
                         "--learner")
        self.assertRegex(added.stdout, r"Member +[0-9a-f]+ added to cluster +[0-9a-f]+\n\n")
        self.assertIn("m4=http://127.0.0.1:10,m4=http://127.0.0.1:9", added.stdout)
        new = added.stdout.split()[1]
        self.assertIn(f"{new}, unstarted, , http://127.0.0.1:", self.same(["member", "list"]))
        self.assertIn("updated in cluster",
                      self.ctl("member", "update", new, "--peer-urls=http://127.0.0.1:11").stdout)
        self.assertIn("http://127.0.0.1:11", self.same(["member", "list"]))
        self.same(["member", "promote", new])  # it isn't there: refused
        self.assertRegex(self.ctl("member", "remove", new).stdout,
                         rf"^Member +{new} removed from cluster +[0-9a-f]+\n$")
        self.same(["member", "remove", new])
        self.same(["member", "list", "-w", "json"])

    def test_move_leader(self):
        self.made = self.cluster(3)
        old = self.made.leader()
        target = next(n for n in self.made.nodes if n is not old).status()["header"]["member_id"]
        said = self.ctl("move-leader", f"{target:x}")
        self.assertEqual(said.stdout, f"Leadership transferred from "
                                      f"{old.status()['header']['member_id']:x} to {target:x}\n")
        wait_for(lambda: self.made.leader() is not old, "another leader")
        only = next(n for n in self.made.nodes if n is not self.made.leader())
        done = subprocess.run([QUORUMCTL, "--endpoints", only.endpoint, "move-leader", f"{target:x}"],
                              capture_output=True, text=True, timeout=60, check=False)
        self.assertIn("no leader endpoint given at", done.stderr)

    def test_one_endpoint_is_down(self):
        self.made = self.cluster(3)
        self.made.nodes[2].kill()
        for command in ("status", "hashkv", "health"):
            done = self.ctl("--command-timeout", "2", "endpoint", command)
            self.assertEqual(done.returncode, 1, done.stdout)
            good = done.stderr.count(" is healthy: ") if command == "health" else done.stdout.count("\n")
            self.assertEqual(good, 2, done.stdout + done.stderr)
            self.assertIn(self.made.nodes[2].endpoint, done.stderr)

    def test_usage(self):
        self.made = self.cluster(1)
        for args in (["member", "add", "x"], ["member", "remove", "zz"], ["compaction"], ["compaction", "x"],
                     ["move-leader"], ["move-leader", "zz"], ["snapshot", "save"], ["endpoint", "nothing"],
                     ["alarm", "list", "-w", "table"], ["member", "list", "-w", "xml"],
                     ["endpoint", "hashkv", "--rev=x"], ["defrag", "--unknown"]):
            done = self.ctl(*args)
            self.assertEqual(done.returncode, 2, (args, done.stdout, done.stderr))
            self.assertNotEqual(done.stderr, "", args)
