"""Real daemons under continuous load while processes, disks and links fail; the history must be linearizable."""
import os
import random
import shutil
import signal
import time
import unittest

from harness import QUORUMD, Process, TestCase, scaled, takes_long, wait_for
from load import Load, Witness, writes_work
from network import HostCluster, Network


class FaultCase(TestCase):
    ROUNDS = scaled(6, 2)

    def load(self, cluster, **options):
        made = Load(cluster, self.folder, **options)
        self.addCleanup(made.kill)
        return made

    def witness(self, cluster, **options):
        made = Witness(cluster, self.folder, **options)
        self.addCleanup(made.kill)
        return made


class Faults(FaultCase):

    def test_kill_the_leader_again_and_again(self):
        cluster = self.cluster(3)
        load = self.load(cluster)
        for _ in range(self.ROUNDS):
            victim = cluster.leader()
            victim.kill()
            writes_work(cluster, [n for n in cluster.nodes if n is not victim])
            victim.start()
            cluster.wait_healthy()
        counts = load.finish(self)
        self.assertGreater(counts["ok"], 100)
        cluster.wait_equal()

    def minute_of_kills(self, size):
        """A minute of load, the leader killed every five seconds: FAULT_LEADER_KILLS=4 is a third of it."""
        cluster = self.cluster(size)
        load, witness = self.load(cluster, clients=12, everywhere=True), self.witness(cluster)
        kills = int(os.environ.get("FAULT_LEADER_KILLS", scaled(12, 2)))
        for i in range(kills):
            begun = time.monotonic()
            victim = cluster.leader()
            cluster.ctl("put", f"/kept/{i}", str(i))
            victim.kill()
            writes_work(cluster, [n for n in cluster.nodes if n is not victim])
            victim.start()
            cluster.wait_healthy()
            for k in range(i + 1):
                self.assertEqual(cluster.ctl("get", f"/kept/{k}", "--print-value-only").stdout, f"{k}\n")
            time.sleep(max(0.0, begun + 5 - time.monotonic()))
        counts = load.finish(self)
        print(f"    {kills} kills of the leader of {size} members: {counts}", flush=True)
        self.assertGreater(counts["ok"], 1000)
        self.assertGreater(counts["reads_min"], 50, "reads at each member")
        witness.finish(self)
        cluster.wait_equal()

    @takes_long
    def test_kill_the_leader_of_three_every_five_seconds(self):
        self.minute_of_kills(3)

    @takes_long
    def test_kill_the_leader_of_five_every_five_seconds(self):
        self.minute_of_kills(5)

    def test_kill_anyone(self):
        cluster = self.cluster(5)
        load = self.load(cluster)
        chance = random.Random(5)
        for _ in range(self.ROUNDS):
            victims = chance.sample(cluster.nodes, 2)
            for victim in victims:
                victim.kill()
            writes_work(cluster, [n for n in cluster.nodes if n not in victims])
            for victim in victims:
                victim.start()
            cluster.wait_healthy()
        load.finish(self)
        cluster.wait_equal()

    def test_stop_and_continue(self):
        """A leader that sleeps while another takes over must not answer from its old state."""
        cluster = self.cluster(3)
        load, witness = self.load(cluster, everywhere=True), self.witness(cluster)
        for i in range(self.ROUNDS):
            sleeper = cluster.leader()
            sleeper.process.signal(signal.SIGSTOP)
            others = [n for n in cluster.nodes if n is not sleeper]
            try:
                writes_work(cluster, others)
                if i < 2:
                    time.sleep(4)  # longer than short leases live, which are renewed elsewhere meanwhile
            finally:
                sleeper.process.signal(signal.SIGCONT)
            cluster.wait_healthy()
        load.finish(self)
        witness.finish(self)
        cluster.wait_equal()

    def test_rolling_restart(self):
        cluster = self.cluster(3)
        load, witness = self.load(cluster), self.witness(cluster)
        for _ in range(scaled(2, 1)):
            for node in cluster.nodes:
                self.assertEqual(node.stop(), 0)
                node.start()
                cluster.wait_healthy()
        counts = load.finish(self)
        self.assertGreater(counts["ok"], 100)
        witness.finish(self)
        cluster.wait_equal()

    def test_wiped_member(self):
        """A member whose data directory is gone comes back through the others, as a new member."""
        cluster = self.cluster(3)
        load = self.load(cluster)
        victim = next(n for n in cluster.nodes if n is not cluster.leader())
        member = victim.status()["header"]["member_id"]
        victim.kill()
        shutil.rmtree(victim.data_dir)
        healthy = next(n for n in cluster.nodes if n is not victim)
        healthy.ctl("member", "remove", f"{member:x}")
        healthy.ctl("member", "add", victim.name, f"--peer-urls={victim.peer_url}")
        flags = victim.cluster_flags
        victim.cluster_flags = [f if f != "new" else "existing" for f in flags]
        victim.start()
        cluster.wait_healthy()
        load.finish(self)
        cluster.wait_equal()


@unittest.skipUnless(os.geteuid() == 0, "network namespaces need root: run the tests as root")
class Partitions(FaultCase):
    def setUp(self):
        super().setUp()
        for tool, package in (("ip", "iproute2"), ("nft", "nftables")):
            if not shutil.which(tool):
                self.skipTest(f"no {tool}: install the package {package}")

    def hosts(self, size, prepare=None):
        network = Network(size)
        self.addCleanup(network.close)
        cluster = HostCluster(network, os.path.join(self.folder, "hosts"), size, QUORUMD)
        if prepare:
            prepare(cluster)
        self.addCleanup(cluster.stop)
        cluster.start()
        beside = ["ip", "netns", "exec", network.client]
        load = self.load(cluster, prefix=beside, clients=12, everywhere=True)
        return network, cluster, load, self.witness(cluster, prefix=beside)

    def run_partitions(self, size, split):
        network, cluster, load, witness = self.hosts(size)
        for i in range(scaled(4, 2)):
            majority = split(network, cluster, i)
            writes_work(cluster, [cluster.nodes[n] for n in majority])
            network.heal()
            cluster.wait_healthy()
        counts = load.finish(self)
        self.assertGreater(counts["ok"], 100)
        witness.finish(self)
        cluster.wait_equal()

    def test_leader_alone(self):
        def split(network, cluster, _):
            alone = cluster.nodes.index(cluster.leader())
            others = [i for i in range(3) if i != alone]
            network.partition([alone], others)
            return others
        self.run_partitions(3, split)

    def test_minority_of_five(self):
        def split(network, _, i):
            minority = [i % 5, (i + 1) % 5]
            majority = [n for n in range(5) if n not in minority]
            network.partition(minority, majority)
            return majority
        self.run_partitions(5, split)

    def test_one_way(self):
        """The leader's messages arrive nowhere, or none arrive at it."""
        def split(network, cluster, i):
            leader = cluster.nodes.index(cluster.leader())
            others = [n for n in range(3) if n != leader]
            for other in others:
                network.block(*((other, leader) if i % 2 else (leader, other)))
            return others
        self.run_partitions(3, split)

    def test_bridge(self):
        """Two halves that only one member can talk to: it and either half are a quorum."""
        def split(network, _, i):
            middle = i % 5
            rest = [n for n in range(5) if n != middle]
            network.partition(rest[:2], rest[2:])
            return list(range(5))
        self.run_partitions(5, split)


class SlowStart(TestCase):
    def test_no_process_is_left(self):
        """Ended clusters leave no process behind."""
        cluster = self.cluster(3)
        pids = [n.process.pid for n in cluster.nodes]
        for node in cluster.nodes:
            self.assertEqual(node.stop(), 0)
        for pid in pids:
            self.assertFalse(os.path.exists(f"/proc/{pid}"))
        begun = time.monotonic()
        for node in cluster.nodes:
            node.start()
        cluster.wait_healthy()
        self.assertLess(time.monotonic() - begun, 60)
        self.assertIsInstance(cluster.nodes[0].process, Process)
