"""Members come and go under load; a client that knows all of them and retries sees nothing of it."""
import json
import os
import shutil

from harness import QUORUMD, Cluster, TestCase, wait_for
from load import Load, writes_work


class Growing(Cluster):
    """Starts with one member; all nodes that will ever be are known from the start."""

    def __init__(self, folder, size, program, flags=()):
        super().__init__(folder, size, program, flags)
        self.all, self.nodes = self.nodes, self.nodes[:1]
        first = self.nodes[0]
        first.cluster_flags = ["--initial-cluster", f"{first.name}={first.peer_url}",
                               "--initial-cluster-state", "new", "--initial-cluster-token", "test"]

    def listed(self):
        """The membership as the members answer it: name -> (is a learner, peer URLs)."""
        done = self.ctl("member", "list", "-w", "json")
        return {m.get("name", ""): (m.get("isLearner", False), m["peerURLs"], m["ID"])
                for m in json.loads(done.stdout)["members"]}

    def join(self, node, learner):
        """member add, the start of the new member with what it needs, and with learner member promote."""
        args = ["member", "add", node.name, f"--peer-urls={node.peer_url}"] + (["--learner"] if learner else [])
        wait_for(lambda: self.ctl(*args, check=False).returncode == 0 or
                 node.peer_url in self.ctl("member", "list").stdout, f"member add {node.name}")
        initial = ",".join(f"{n.name}={n.peer_url}" for n in self.nodes + [node])
        node.cluster_flags = ["--initial-cluster", initial, "--initial-cluster-state", "existing",
                              "--initial-cluster-token", "test"]
        shutil.rmtree(node.data_dir, ignore_errors=True)
        node.start()
        wait_for(lambda: self.must_run(node) and self.listed().get(node.name), f"{node.name} to be listed")
        member = self.listed()[node.name][2]
        if learner:
            wait_for(lambda: self.ctl("member", "promote", f"{member:x}", check=False).returncode == 0 or
                     not self.listed()[node.name][0], f"the promotion of {node.name}")
        self.nodes.append(node)
        self.wait_healthy()

    def leave(self, node):
        member = self.listed()[node.name][2]
        wait_for(lambda: self.ctl("member", "remove", f"{member:x}", check=False).returncode == 0 or
                 node.name not in self.listed(), f"member remove {node.name}")
        self.nodes.remove(node)
        wait_for(lambda: not node.process.running(), f"{node.name} to end after its removal", 20)
        node.kill()
        self.wait_healthy()


class Members(TestCase):
    def check(self, cluster, learners=()):
        listed = cluster.listed()
        self.assertEqual({name: entry[:2] for name, entry in listed.items()},
                         {n.name: (n.name in learners, [n.peer_url]) for n in cluster.nodes})
        writes_work(cluster)

    def growing(self, size, flags=()):
        cluster = Growing(os.path.join(self.folder, "cluster"), size, QUORUMD, flags)
        self.addCleanup(lambda: [n.kill() for n in cluster.all])
        cluster.start()
        return cluster

    def load(self, cluster, **options):
        everyone = type("Everyone", (), {"nodes": cluster.all})
        load = Load(everyone, self.folder, **options)
        self.addCleanup(load.kill)
        return load

    def test_one_three_five_three_one(self):
        """Joined as learners and as voters; those who leave are followers and leaders. The clients name their
        writes, so that they can repeat them: none of them sees an error."""
        cluster = self.growing(5)
        load = self.load(cluster, named=True)
        for i, node in enumerate(cluster.all[1:]):
            cluster.join(node, learner=i % 2 == 0)
            self.check(cluster)
        for i in range(4):
            leader = cluster.leader()
            cluster.leave(leader if i % 2 == 0 else next(n for n in cluster.nodes if n is not leader))
            self.check(cluster)
        counts = load.finish(self)
        self.assertGreater(counts["ok"], 500)
        self.assertEqual(counts["failed"] + counts["unknown"], 0, counts)
        self.assertEqual(len(cluster.nodes), 1)

    def handed_over(self, cluster, leader, go):
        """`go` ends the leader's reign. It must end by a hand-over, which the logs and the term tell: the next leader
        campaigns at once, without the pre-vote of who waited for an election timeout."""
        term = leader.status()["raftTerm"]
        others = [n for n in cluster.nodes if n is not leader]
        marks = {n: len(n.process.log_text()) for n in others}
        go()
        wait_for(lambda: any(n.status()["raftTerm"] > term for n in others), "another leader")
        cluster.wait_healthy(others)
        writes_work(cluster, others)
        said = "".join(n.process.log_text()[marks[n]:] for n in others)
        self.assertIn(f"campaigns for term {term + 1}", said)
        self.assertNotIn("asks for pre-votes", said)
        self.assertRegex(said, rf"leader=\w+ term={term + 1}\b")

    def nobody_noticed(self, load, what):
        counts = load.finish(self)
        self.assertEqual(counts["failed"] + counts["unknown"], 0, counts)
        print(f"    longest time without a write while {what}: {counts['gap_ms']} ms", flush=True)

    def test_leader_removes_itself(self):
        """The heir is told with the commit of the removal; nobody waits for an election timeout (of ten seconds here)."""
        cluster = self.growing(4, ["--election-timeout=10000", "--heartbeat-interval=100"])
        for node in cluster.all[1:]:
            cluster.join(node, learner=False)
        load = self.load(cluster, named=True)
        for _ in range(2):
            leader = cluster.leader()
            self.handed_over(cluster, leader, lambda node=leader: cluster.leave(node))
        self.nobody_noticed(load, "two leaders removed themselves")

    def test_leader_is_told_to_stop(self):
        """SIGTERM: leadership goes to another one first, and the process ends with 0."""
        cluster = self.growing(3, ["--election-timeout=10000", "--heartbeat-interval=100"])
        for node in cluster.all[1:]:
            cluster.join(node, learner=False)
        load = self.load(cluster, named=True)
        for _ in range(3):
            leader = cluster.leader()

            def stop(node=leader):
                process = node.process
                self.assertEqual(node.stop(), 0, process.log_tail())
                self.assertIn("hands over to", process.log_text())
            self.handed_over(cluster, leader, stop)
            leader.start()
            cluster.wait_healthy()
        self.nobody_noticed(load, "three leaders were told to stop")

    def test_replacement(self):
        """Each member in turn is removed with its data and comes back empty, under a new id."""
        cluster = self.growing(3)
        for node in cluster.all[1:]:
            cluster.join(node, learner=False)
        load = self.load(cluster)
        for node in list(cluster.all):
            cluster.leave(node)
            cluster.join(node, learner=True)
            self.check(cluster)
        load.finish(self)
        cluster.wait_equal()
