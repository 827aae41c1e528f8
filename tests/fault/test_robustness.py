"""More of what etcd's robustness tests and Jepsen's do to a cluster, on real daemons, each with a checked history."""
import random
import signal
import time

from harness import scaled, wait_for
from load import writes_work
import test_faults


class Robustness(test_faults.FaultCase):
    def finish(self, cluster, load, witness=None):
        counts = load.finish(self)
        self.assertGreater(counts["ok"], 100)
        if witness:
            witness.finish(self)
        cluster.wait_equal()

    def test_pause_each_in_turn(self):
        cluster = self.cluster(3)
        load, witness = self.load(cluster), self.witness(cluster)
        for _ in range(scaled(2, 1)):
            for sleeper in cluster.nodes:
                sleeper.process.signal(signal.SIGSTOP)
                try:
                    writes_work(cluster, [n for n in cluster.nodes if n is not sleeper])
                finally:
                    sleeper.process.signal(signal.SIGCONT)
                cluster.wait_healthy()
        self.finish(cluster, load, witness)

    def test_pause_all(self):
        """Longer than an election takes: whoever wakes first must not answer from what it knew."""
        cluster = self.cluster(3)
        load, witness = self.load(cluster), self.witness(cluster)
        chance = random.Random(3)
        for _ in range(scaled(3, 1)):
            for node in cluster.nodes:
                node.process.signal(signal.SIGSTOP)
            time.sleep(1.5)
            for node in chance.sample(cluster.nodes, 3):
                node.process.signal(signal.SIGCONT)
                time.sleep(chance.uniform(0, 0.5))  # no condition: any order and distance will do
            cluster.wait_healthy()
            writes_work(cluster)
        self.finish(cluster, load, witness)

    def test_compaction_and_defragmentation(self):
        cluster = self.cluster(3)
        load = self.load(cluster)
        for i in range(scaled(6, 2)):
            time.sleep(0.5)  # history to compact
            revision = cluster.leader().status()["header"]["revision"]
            cluster.ctl("compaction", str(revision))
            node = cluster.nodes[i % 3]
            node.ctl("defrag")
            if i % 2:
                node.kill()
                node.start()
            cluster.wait_healthy()
        self.finish(cluster, load)

    def test_kill_during_a_snapshot(self):
        """A member that is behind what the others' logs still have is killed again while it catches up."""
        cluster = self.cluster(3, ["--snapshot-count", "100"])
        load = self.load(cluster)
        chance = random.Random(1)
        for i in range(scaled(3, 1)):
            victim = next(n for n in cluster.nodes if n is not cluster.leader())
            victim.kill()
            others = [n for n in cluster.nodes if n is not victim]
            begun = others[0].status()["raftIndex"]
            for k in range(20):
                others[0].ctl("put", f"/big/{i}/{k}", input="x" * 500000)
            wait_for(lambda b=begun: others[0].status()["raftIndex"] > b + 1000, "a log that moves on")
            for _ in range(4):
                victim.start()
                time.sleep(chance.uniform(0.02, 0.4))  # any moment
                victim.kill()
            victim.start()
            cluster.wait_healthy()
        self.finish(cluster, load)


class Loss(test_faults.Partitions):
    """Every second packet between members is lost."""

    test_leader_alone = test_minority_of_five = test_one_way = test_bridge = None

    def test_half_of_the_packets(self):
        network, cluster, load, witness = self.hosts(3)
        for _ in range(scaled(2, 1)):
            network.lose_half()
            time.sleep(5)  # progress is not promised meanwhile; correctness is
            network.heal()
            cluster.wait_healthy()
            writes_work(cluster)
        counts = load.finish(self)
        self.assertGreater(counts["ok"], 100)
        witness.finish(self)
        cluster.wait_equal()
