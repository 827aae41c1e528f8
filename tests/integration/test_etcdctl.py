"""etcdctl can't tell quorumd from etcd: the same commands give the same output on both."""
import json
import re
import subprocess

from harness import TestCase, wait_for

COMMANDS = [
    # what, arguments, standard input
    ("put", ["put", "/a", "1"], None),
    ("put prev", ["put", "--prev-kv", "/a", "2"], None),
    ("put from stdin", ["put", "/b"], "from stdin"),
    ("put empty value", ["put", "/empty", ""], None),
    ("put ignore-value", ["put", "--ignore-value", "/a"], None),
    ("put ignore-value of a missing key", ["put", "--ignore-value", "/missing"], None),
    ("put ignore-lease of a missing key", ["put", "--ignore-lease", "/missing", "x"], None),
    ("put with an unknown lease", ["put", "--lease=1234", "/l", "x"], None),
    ("get", ["get", "/a"], None),
    ("get json", ["get", "/a", "-w", "json"], None),
    ("get fields", ["get", "/a", "-w", "fields"], None),
    ("get missing", ["get", "/missing"], None),
    ("get prefix", ["get", "--prefix", "/"], None),
    ("get keys", ["get", "--prefix", "/", "--keys-only"], None),
    ("get limit", ["get", "--prefix", "/", "--limit=1", "-w", "json"], None),
    ("get count", ["get", "--prefix", "/", "--count-only", "-w", "json"], None),
    ("get from key", ["get", "--from-key", "/b"], None),
    ("get sorted", ["get", "--prefix", "/", "--sort-by=MODIFY", "--order=DESCEND"], None),
    ("get sorted by value", ["get", "--prefix", "/", "--sort-by=VALUE"], None),
    ("get range", ["get", "/a", "/c"], None),
    ("get old revision", ["get", "--rev=2", "/a", "-w", "json"], None),
    ("get future revision", ["get", "--rev=99", "/a"], None),
    ("get serializable", ["get", "--consistency=s", "/a"], None),
    ("get hex", ["get", "--hex", "/a"], None),
    ("get value only", ["get", "--print-value-only", "/b"], None),
    ("txn success", ["txn"], 'mod("/a") > "1"\n\nput /t yes\nget /t\n\nput /t no\n\n'),
    ("txn failure", ["txn"], 'value("/a") = "zzz"\n\nput /t yes\n\nput /t no\nget /t\n\n'),
    ("txn json", ["txn", "-w", "json"], 'ver("/a") = "3"\n\ndel /t\nget /a\n\nget /b\n\n'),
    ("txn create compare", ["txn"], 'create("/nokey") = "0"\n\nput /nokey 1\n\n\n'),
    ("txn duplicate key", ["txn"], 'ver("/a") > "0"\n\nput /x 1\nput /x 2\n\n\n'),
    ("del", ["del", "/b"], None),
    ("del prev", ["del", "--prev-kv", "/t"], None),
    ("del missing", ["del", "/missing"], None),
    ("del prefix", ["del", "--prefix", "/e"], None),
    ("del json", ["del", "/nokey", "-w", "json"], None),
    ("compact", ["compaction", "4"], None),
    ("compact again", ["compaction", "4"], None),
    ("compact the future", ["compaction", "1000"], None),
    ("get compacted", ["get", "--rev=3", "/a"], None),
    ("get at the compact revision", ["get", "--rev=4", "/a"], None),
    ("watch compacted", ["watch", "--rev=2", "/a"], None),
    ("lease list, none", ["lease", "list"], None),
    ("revoke unknown", ["lease", "revoke", "0bad"], None),
    ("keep-alive unknown", ["lease", "keep-alive", "--once", "0bad"], None),
    ("time to live unknown", ["lease", "timetolive", "0bad"], None),
    ("lease too long", ["lease", "grant", "9000000001"], None),
    ("empty key", ["put", "", "x"], None),
    ("empty key get", ["get", ""], None),
    ("alarm list", ["alarm", "list"], None),
    ("defrag", ["defrag"], None),
    ("member remove unknown", ["member", "remove", "abcd"], None),
]


def normal(text):
    """Takes out what differs between any two clusters: ids, terms, ports, times."""
    text = re.sub(r'"(cluster_id|member_id|raft_term|leader)":\d+', r'"\1":N', text)
    text = re.sub(r'"(ClusterID|MemberID|RaftTerm|Leader)" : \d+', r'"\1" : N', text)
    text = re.sub(r"127\.0\.0\.1:\d+", "HOST", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z?[-+\d:]*", "TIME", text)
    text = re.sub(r"took = [\w.µ]+", "took", text)
    text = re.sub(r"endpoint://client-[-\w]+", "CLIENT", text)
    text = re.sub(r'passthrough:///\S+', "TARGET", text)
    return text


class Etcdctl(TestCase):
    def test_same_output_as_etcd(self):
        ours, theirs = self.cluster(1), self.etcd()
        for what, args, given in COMMANDS:
            with self.subTest(what):
                results = [c.ctl(*args, input=given or "", check=False, timeout=30)
                           for c in (ours, theirs)]
                mine, oracle = [(r.returncode, normal(r.stdout), normal(r.stderr)) for r in results]
                self.assertEqual(mine, oracle, what)

    def test_watch_prints_the_same_events(self):
        outputs = []
        for cluster in (self.cluster(1), self.etcd()):
            watch = subprocess.Popen(
                ["etcdctl", "--endpoints", cluster.endpoints[0], "watch", "--prefix", "--prev-kv",
                 "--rev=1", "/w"], stdout=subprocess.PIPE, text=True, env={"ETCDCTL_API": "3",
                                                                         "PATH": "/usr/bin:/bin"})
            self.addCleanup(watch.kill)
            cluster.ctl("put", "/w/1", "a")
            cluster.ctl("put", "/w/1", "b")
            cluster.ctl("put", "/other", "b")
            cluster.ctl("txn", input='ver("/w/1") > "0"\n\nput /w/2 x\nput /w/3 y\n\n\n')
            cluster.ctl("del", "--prefix", "/w/")
            lines = []
            while lines.count("DELETE") < 3:
                line = watch.stdout.readline()
                self.assertNotEqual(line, "", "the watch ended early")
                lines.append(line.rstrip("\n"))
            watch.kill()
            watch.wait()
            watch.stdout.close()
            outputs.append(lines)
        self.assertEqual(outputs[0], outputs[1])

    def test_leases(self):
        cluster = self.cluster(3)
        for node in cluster.nodes:  # every member answers, not only the leader
            granted = json.loads(node.ctl("lease", "grant", "60", "-w", "json").stdout)
            lease = f"{granted['ID']:x}"
            node.ctl("put", f"--lease={lease}", f"/lease/{node.name}", "v")
            shown = json.loads(node.ctl("lease", "timetolive", lease, "--keys", "-w", "json").stdout)
            self.assertEqual(shown["granted-ttl"], 60)
            self.assertLessEqual(shown["ttl"], 60)
            self.assertEqual(len(shown["keys"]), 1)
            alive = node.ctl("lease", "keep-alive", "--once", lease).stdout
            self.assertIn("keepalived with TTL(60)", alive)
            node.ctl("lease", "revoke", lease)
            self.assertEqual(node.ctl("get", f"/lease/{node.name}").stdout, "")
        granted = json.loads(cluster.ctl("lease", "grant", "1", "-w", "json").stdout)
        cluster.ctl("put", f"--lease={granted['ID']:x}", "/short", "v")
        wait_for(lambda: cluster.ctl("get", "/short").stdout == "", "the lease to expire")

    def test_members_status_health(self):
        cluster = self.cluster(3)
        def named():  # a member tells its name and its client URLs once it has joined
            answer = json.loads(cluster.ctl("member", "list", "-w", "json").stdout)["members"]
            return answer if all(m.get("clientURLs") for m in answer) else None
        members = wait_for(named, "all members to be started")
        self.assertEqual({m["name"] for m in members}, {"m1", "m2", "m3"})
        self.assertEqual({m["clientURLs"][0] for m in members},
                         {n.client_url for n in cluster.nodes})
        for node in cluster.nodes:
            status = node.status()
            self.assertEqual(status["leader"], cluster.leader().status()["header"]["member_id"])
            health = node.ctl("endpoint", "health")
            self.assertIn("is healthy: successfully committed proposal",
                          health.stdout + health.stderr)

    def test_move_leader(self):
        cluster = self.cluster(3)
        old = cluster.leader()
        target = next(n for n in cluster.nodes if n is not old)
        wanted = target.status()["header"]["member_id"]
        old.ctl("move-leader", f"{wanted:x}")
        self.assertIs(cluster.leader(), target)
