"""A cluster keeps what it acknowledged while members die, and says so when it can't."""
import os
import random
import signal
import subprocess
import threading
import time

from harness import BUILD, PATIENCE_S, SANITIZED, TestCase, etcdctl, scaled, takes_long, wait_for


class Writer(threading.Thread):
    """Puts numbered keys through all endpoints and remembers which were acknowledged."""

    def __init__(self, endpoints, prefix):
        super().__init__(daemon=True)
        self.endpoints, self.prefix = endpoints, prefix
        self.acknowledged, self.refused = [], 0
        self.ending = threading.Event()

    def run(self):
        number = 0
        while not self.ending.is_set():
            number += 1
            order = self.endpoints[:]
            random.shuffle(order)
            done = etcdctl(order, "--command-timeout=10s", "put", f"{self.prefix}{number:06d}",
                           str(number), check=False)
            if done.returncode == 0:
                self.acknowledged.append(number)
            else:
                self.refused += 1

    def finish(self):
        self.ending.set()
        self.join()
        return self.acknowledged


class ClusterTest(TestCase):
    def values(self, node, prefix):
        lines = node.ctl("get", "--prefix", prefix).stdout.splitlines()
        return {int(value) for value in lines[1::2]}

    def test_nothing_acknowledged_is_lost_when_each_member_is_killed_in_turn(self):
        cluster = self.cluster(3)
        writer = Writer(cluster.endpoints, "/k/")
        writer.start()
        for victim in [cluster.leader()] + cluster.nodes:
            wait_for(lambda: writer.is_alive(), "the writer")
            seen = len(writer.acknowledged)
            victim.kill()
            wait_for(lambda s=seen: len(writer.acknowledged) > s + 5, "writes without one member")
            victim.start()
            cluster.wait_healthy([victim])
        acknowledged = writer.finish()
        cluster.wait_equal()
        for node in cluster.nodes:
            self.assertFalse(set(acknowledged) - self.values(node, "/k/"), node.name)

    def test_all_killed_at_once(self):
        cluster = self.cluster(3)
        writer = Writer(cluster.endpoints, "/all/")
        writer.start()
        for _ in range(scaled(3, 1)):
            seen = len(writer.acknowledged)
            wait_for(lambda s=seen: len(writer.acknowledged) > s + 20, "some writes")
            for node in cluster.nodes:
                node.process.signal(signal.SIGKILL)
            for node in cluster.nodes:
                node.kill()
                node.start()
            cluster.wait_healthy()
        acknowledged = writer.finish()
        cluster.wait_equal()
        self.assertFalse(set(acknowledged) - self.values(cluster.nodes[0], "/all/"))

    def test_without_a_quorum(self):
        cluster = self.cluster(3)
        cluster.ctl("put", "/q", "before")
        leader = cluster.leader()
        others = [n for n in cluster.nodes if n is not leader]
        others[0].kill()
        leader.kill()
        alone = others[1]
        begun = time.monotonic()
        refused = alone.ctl("--command-timeout=30s", "put", "/q", "never", check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertLess(time.monotonic() - begun, 29)
        self.assertNotEqual(alone.ctl("--command-timeout=3s", "get", "/q", check=False).returncode, 0)
        stale = alone.ctl("get", "--consistency=s", "/q").stdout
        self.assertEqual(stale, "/q\nbefore\n")
        leader.start()
        cluster.wait_healthy([alone, leader])
        self.assertIn(alone.ctl("get", "/q").stdout, ("/q\nbefore\n", "/q\nnever\n"))
        alone.ctl("put", "/q", "after")
        others[0].start()
        cluster.wait_equal()

    def test_a_member_far_behind_gets_a_snapshot(self):
        cluster = self.cluster(3, flags=["--snapshot-count", "200"])
        follower = next(n for n in cluster.nodes if n is not cluster.leader())
        follower.kill()
        self.fill(cluster.leader(), scaled(1500, 600))
        follower.start()
        cluster.wait_healthy([follower])
        cluster.wait_equal()

    def fill(self, node, count):
        """Writes `count` revisions' worth of data: transactions of 100 puts, and single puts."""
        for _ in range(count // 100):
            puts = "".join(f"put /fill/{i:03d} {random.random()}\n" for i in range(100))
            node.ctl("txn", input="\n" + puts + "\n\n")
        for i in range(count // 10):
            node.ctl("put", f"/single/{i}", "x")

    @takes_long
    def test_one_node_keeps_everything_over_100_restarts(self):
        cluster = self.cluster(1)
        node = cluster.nodes[0]
        rounds = scaled(100, 20)
        for i in range(rounds):
            node.ctl("put", f"/restart/{i}", str(i))
            if i % 2:
                self.assertEqual(node.stop(), 0)
            else:
                node.kill()
            node.start()
            cluster.wait_healthy()
        self.assertEqual(self.values(node, "/restart/"), set(range(rounds)))

    @takes_long
    def test_log_store_and_memory_stay_bounded(self):
        """As many puts as an hour of fifty a second brings: what is kept is bounded by quota and margins."""
        quota = 64 << 20
        cluster = self.cluster(1, flags=["--quota-backend-bytes", str(quota)])
        node = cluster.nodes[0]

        def load(puts):
            """Runs the load client until the revision has grown by so many."""
            goal = node.status()["header"]["revision"] + puts
            while node.status()["header"]["revision"] < goal:
                done = subprocess.run([os.path.join(BUILD, "tests", "bench", "load"), "put",
                                       node.client_url, "50", "2"], capture_output=True, text=True,
                                      timeout=PATIENCE_S, check=True)
                self.assertIn("errors=0", done.stdout)

        def resident():
            status = open(f"/proc/{node.process.pid}/status", encoding="ascii").read()
            return int(status.split("VmRSS:")[1].split()[0]) * 1024

        puts = scaled(180000, 30000)
        load(puts // 2)
        first = resident()
        load(puts // 2)
        log = sum(os.path.getsize(os.path.join(folder, name))
                  for folder, _, names in os.walk(node.data_dir) for name in names
                  if name.endswith(".wal"))
        self.assertLess(log, 5 * (64 << 20))
        self.assertLess(node.status()["dbSize"], quota)
        if not SANITIZED:  # AddressSanitizer keeps freed memory for a while
            self.assertLess(resident(), first + (64 << 20))

    def test_five_survive_two(self):
        cluster = self.cluster(5)
        cluster.ctl("put", "/five", "1")
        cluster.leader().kill()
        left = [n for n in cluster.nodes if n.process]
        cluster.wait_healthy(left)
        cluster.leader().kill()
        left = [n for n in cluster.nodes if n.process]
        cluster.wait_healthy(left)
        etcdctl([n.endpoint for n in left], "put", "/five", "2")
        for node in cluster.nodes:
            if not node.process:
                node.start()
        cluster.wait_equal()
