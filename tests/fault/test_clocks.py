"""Clocks that jump by hours and run too fast or too slow, each member's in another way."""
import os
import random
import struct
import subprocess
import sys
import unittest

from harness import BUILD, QUORUMD, Cluster, scaled, wait_for
from load import writes_work
from lossy import needs_preload
import test_faults

LIBRARY = os.path.join(BUILD, "tests", "fault", "skewed.so")
HOUR_NS = 3600 * 10**9
JUMPS = int(os.environ.get("FAULT_JUMPS", scaled(10, 4)))


class Clock:
    """What skewed.so reads for one process."""

    def __init__(self, folder, name, fast_ppm=0):
        self.path = os.path.join(folder, name + ".clock")
        with open(self.path, "wb") as file:
            file.write(struct.pack("=qq", 0, fast_ppm))
        self.environment = {"LD_PRELOAD": LIBRARY, "SKEWED_FILE": self.path}

    def jump(self, wall_ns):
        """To so many nanoseconds from the right time."""
        with open(self.path, "r+b", buffering=0) as file:
            file.write(struct.pack("=q", wall_ns))


def set_clocks(cluster, folder, fast_ppm):
    """Before the start: each member's clock runs too fast by its number."""
    for node, ppm in zip(cluster.nodes, fast_ppm):
        node.clock = Clock(folder, node.name, ppm)
        node.environment = node.clock.environment


@needs_preload
class Clocks(test_faults.FaultCase):
    def test_the_layer(self):
        """skewed.so by itself: the wall clock jumps at once, both clocks run fast from the start on."""
        clock = Clock(self.folder, "layer", 500000)
        clock.jump(2 * HOUR_NS)
        program = ("import struct, time, sys; a, b = time.time(), time.monotonic(); time.sleep(0.2)\n"
                   "file = open(sys.argv[1], 'r+b', buffering=0); file.write(struct.pack('=q', -10**12))\n"
                   "print(a, time.time(), time.monotonic() - b)")
        done = subprocess.run([sys.executable, "-c", program, clock.path], capture_output=True, text=True, check=True,
                              env=dict(os.environ, **clock.environment))
        before, after, passed = map(float, done.stdout.split())
        self.assertGreaterEqual(passed, 0.3)
        self.assertAlmostEqual(before - after, 7200 + 1000, delta=60)

    def skewed(self, fast_ppm):
        cluster = Cluster(os.path.join(self.folder, "cluster"), len(fast_ppm), QUORUMD)
        set_clocks(cluster, self.folder, fast_ppm)
        self.addCleanup(cluster.stop)
        return cluster.start()

    @staticmethod
    def moves_on(node, revisions=30):
        goal = node.status()["header"]["revision"] + revisions
        wait_for(lambda: node.status()["header"]["revision"] >= goal, "the load to go on")

    def jumps(self, cluster, chance):
        """Hours to and fro, at one member or all; the load goes on, and who leads goes on leading."""
        leader, term = cluster.leader(), cluster.nodes[0].status()["raftTerm"]
        for i in range(JUMPS):
            hours = chance.choice([-48, -6, -1, 1, 6, 48])
            for node in cluster.nodes if i % 3 == 2 else [leader if i % 3 else chance.choice(cluster.nodes)]:
                node.clock.jump(hours * HOUR_NS)
            self.moves_on(leader)
        self.assertEqual((cluster.leader(), cluster.nodes[0].status()["raftTerm"]), (leader, term))

    def run_skewed(self, fast_ppm):
        cluster = self.skewed(fast_ppm)
        load, witness = self.load(cluster), self.witness(cluster)
        chance = random.Random(len(fast_ppm))
        self.jumps(cluster, chance)
        for _ in range(2):
            # The next leader's clock is two days behind that of the last one: its stamps must not be.
            for node in cluster.nodes:
                node.clock.jump(-24 * HOUR_NS)
            victim = cluster.leader()
            victim.clock.jump(24 * HOUR_NS)
            self.moves_on(victim)
            victim.kill()
            victim.clock.jump(-24 * HOUR_NS)
            if len(cluster.nodes) > 1:
                writes_work(cluster, [n for n in cluster.nodes if n is not victim])
            victim.start()
            cluster.wait_healthy()
            self.moves_on(victim)
        counts = load.finish(self)
        self.assertGreater(counts["ok"], 100)
        self.assertGreater(witness.finish(self)["stamp_ahead_s"], 3600, "no clock was ahead: it proves nothing")
        cluster.wait_equal()

    def test_three_members(self):
        self.run_skewed([50000, -50000, 0])

    def test_one_member(self):
        self.run_skewed([50000])


@needs_preload
class SlowLeader(test_faults.Partitions):
    test_leader_alone = test_minority_of_five = test_one_way = test_bridge = None

    def test_cut_off(self):
        """A leader whose clock takes three seconds for one takes itself for the leader long after the others have elected
        another one. It answers no read from what it knew: clients that ask nobody else look."""
        network, cluster, load, witness = self.hosts(
            3, lambda made: set_clocks(made, self.folder, [-660000, 0, 0]))
        slow, others = cluster.nodes[0], cluster.nodes[1:]
        member = f"{slow.status()['header']['member_id']:x}"

        def leads():
            leader = cluster.leader()
            if leader is not slow:
                leader.ctl("move-leader", member, check=False)
            return leader is slow
        for _ in range(scaled(3, 1)):
            wait_for(leads, "the slow one to lead")
            network.partition([0], [1, 2])
            writes_work(cluster, others)
            Clocks.moves_on(others[0])
            network.heal()
            cluster.wait_healthy()
        counts = load.finish(self)
        self.assertGreater(counts["ok"], 100)
        witness.finish(self)
        cluster.wait_equal()


if __name__ == "__main__":
    unittest.main()
