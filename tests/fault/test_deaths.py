"""Members that are killed at a chosen disk operation: before or after any write, sync, rename ... of log, store and the
rest, as etcd's failpoints around saving, committing, compacting and snapshots do. FAULT_DEATHS=100 for more of them,
FAULT_DEATHS_SEED for others."""
import collections
import os
import random
import re
import signal
import subprocess
import unittest

from harness import QUORUMD, scaled, wait_for
from lossy import LossyCluster, needs_preload
from test_faults import FaultCase

DEATHS = int(os.environ.get("FAULT_DEATHS", scaled(10, 3)))
SEED = int(os.environ.get("FAULT_DEATHS_SEED", 1))
# Places that a member passes in a second or two of load, and in a restart: any; without writes; names and sizes only.
UNDER_LOAD, AT_START = (400, 100, 5), (60, 20, 8)


@needs_preload
class Deaths(FaultCase):
    def cluster_of(self, size, flags=()):
        cluster = LossyCluster(os.path.join(self.folder, "cluster"), size, QUORUMD, flags)
        self.addCleanup(cluster.stop)
        return cluster.start()

    @staticmethod
    def dies(node):
        wait_for(lambda: not node.process.running(), f"{node.name} to get to its last operation")
        code = node.process.popen.returncode
        if code != -signal.SIGKILL:
            raise AssertionError(f"{node.name} ended by itself, with {code}:\n{node.process.log_tail()}")

    @staticmethod
    def arm(node, chance, places):
        counted = chance.randrange(len(places))
        node.disk.die_in(chance.randint(1, places[counted]), counted)

    def comes_back(self, node, chance, power):
        """After its death; half of the time it dies once more while it starts, or soon after. If the `power` failed, all
        or a part of what was not synced is lost."""
        for again in (chance.random() < 0.5, False):
            self.dies(node)
            node.kill()
            if power:
                node.lose_power(chance.choice([None, chance.randrange(1, 1 << 40)]))
            if again:
                self.arm(node, chance, AT_START)
            node.start()
            if not again:
                return

    def report(self, cluster, counts):
        text = "".join(open(os.path.join(n.folder, n.name + ".log"), encoding="utf-8", errors="replace").read()
                       for n in cluster.nodes)
        places = re.findall(r"^lossy: killed (before|after) (\w+) of (\S+)", text, re.MULTILINE)
        kinds = collections.Counter(f"{when} {call} {os.path.splitext(path)[1] or '-'}" for when, call, path in places)
        print(f"    seed {SEED}: {len(places)} deaths, load {counts}", flush=True)
        print("    " + ", ".join(f"{n}x {kind}" for kind, n in kinds.most_common()), flush=True)
        self.assertGreaterEqual(len(places), DEATHS)

    def test_one_of_three(self):
        """Small logs, so that segments, checkpoints and snapshots come and go."""
        cluster = self.cluster_of(3, ["--snapshot-count", "100"])
        load, witness = self.load(cluster), self.witness(cluster)
        chance = random.Random(SEED)
        for i in range(DEATHS):
            node = cluster.leader() if i % 3 == 0 else chance.choice(cluster.nodes)
            self.arm(node, chance, UNDER_LOAD)
            self.comes_back(node, chance, power=i % 2 == 1)
            cluster.wait_healthy()
        counts = load.finish(self)
        self.assertGreater(counts["ok"], 100)
        witness.finish(self)
        cluster.wait_equal()
        self.report(cluster, counts)

    def test_single_node_in_a_power_loss(self):
        """All that was not synced is gone, with compactions and defragmentations on the way."""
        cluster = self.cluster_of(1, ["--snapshot-count", "100"])
        node = cluster.nodes[0]
        load = self.load(cluster)
        chance = random.Random(SEED)
        for i in range(DEATHS):
            node.ctl("put", f"/kept/{i}", str(i))
            revision = node.status()["header"]["revision"]
            self.arm(node, chance, UNDER_LOAD)
            operator = subprocess.Popen(["sh", "-c", f"etcdctl --endpoints {node.endpoint} compaction {revision}; "
                                         f"exec etcdctl --endpoints {node.endpoint} defrag"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        env=dict(os.environ, ETCDCTL_API="3"))
            self.dies(node)
            operator.kill()
            operator.wait()
            self.comes_back(node, chance, power=True)
            cluster.wait_healthy()
            for k in range(i + 1):
                self.assertEqual(node.ctl("get", f"/kept/{k}", "--print-value-only").stdout, f"{k}\n")
        counts = load.finish(self)
        self.assertGreater(counts["ok"], 100)
        self.report(cluster, counts)


if __name__ == "__main__":
    unittest.main()
