"""Power losses: what a member wrote and did not sync is gone. First that the layer which does this is right."""
import os
import random
import subprocess
import sys
import time
import unittest

from harness import TestCase, etcdctl, scaled, wait_for
from load import Load, writes_work
from lossy import Disk, LossyCluster, needs_preload

SECTOR = 512


@needs_preload
class Layer(TestCase):
    """lossy.so and lossy_undo by themselves; the programs are Python's."""

    def setUp(self):
        super().setUp()
        self.disk = Disk(self.folder, "layer")

    def run_killed(self, program):
        """Runs Python statements in the disk's folder; the process kills itself at their end."""
        done = subprocess.run(
            [sys.executable, "-S", "-c", "import os, signal\n" + program + "\nos.kill(os.getpid(), signal.SIGKILL)"],
            cwd=self.disk.path, env=dict(os.environ, **self.disk.environment()), capture_output=True,
            text=True, check=False)
        self.assertEqual(done.returncode, -9, done.stderr)

    def read_or_none(self, name):
        path = os.path.join(self.disk.path, name)
        return self.read(path) if os.path.exists(path) else None

    HELPERS = """
def put(name, text, offset=0):
    fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
    os.pwrite(fd, text, offset)
    return fd
def sync_dir(name="."):
    fd = os.open(name, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
"""

    def lose(self, program, seed=None):
        self.run_killed(self.HELPERS + program)
        return self.disk.lose(seed)

    def test_unsynced_bytes_are_lost(self):
        self.lose("os.fsync(put('a', b'old')); sync_dir()")
        self.lose("put('a', b'new and longer')")
        self.assertEqual(self.read_or_none("a"), b"old")
        self.lose("os.fdatasync(put('a', b'new and longer')); put('a', b'NEW')")
        self.assertEqual(self.read_or_none("a"), b"new and longer")

    def test_a_sync_in_one_process_settles_another_ones_writes(self):
        self.run_killed(self.HELPERS + "put('a', b'one'); sync_dir()")
        self.lose("os.fsync(os.open('a', os.O_RDWR))")
        self.assertEqual(self.read_or_none("a"), b"one")

    def test_names_need_a_sync_of_the_folder(self):
        self.lose("os.fsync(put('new', b'x'))")
        self.assertIsNone(self.read_or_none("new"))
        self.lose("os.fsync(put('new', b'x')); sync_dir(); os.rename('new', 'current')")
        self.assertEqual(self.read_or_none("new"), b"x")
        self.assertIsNone(self.read_or_none("current"))
        self.lose("os.rename('new', 'current'); sync_dir()")
        self.assertEqual(self.read_or_none("current"), b"x")
        self.lose("os.fsync(put('new', b'y')); sync_dir(); os.rename('new', 'current')")
        self.assertEqual(self.read_or_none("current"), b"x")
        self.assertEqual(self.read_or_none("new"), b"y")
        self.lose("os.unlink('current')")
        self.assertEqual(self.read_or_none("current"), b"x")
        self.lose("os.unlink('current'); sync_dir()")
        self.assertIsNone(self.read_or_none("current"))

    def test_folders(self):
        self.lose("os.mkdir('d'); os.fsync(put('d/a', b'x')); sync_dir('d')")
        self.assertFalse(os.path.exists(os.path.join(self.disk.path, "d")))
        self.lose("os.mkdir('d'); sync_dir(); os.fsync(put('d/a', b'x')); sync_dir('d')")
        self.assertEqual(self.read_or_none("d/a"), b"x")

    def test_sizes(self):
        self.lose("fd = put('a', b'0123456789'); os.fsync(fd); sync_dir(); os.ftruncate(fd, 4);"
                  "os.pwrite(fd, b'xx', 8)")
        self.assertEqual(self.read_or_none("a"), b"0123456789")
        self.lose("os.open('a', os.O_RDWR | os.O_TRUNC)")
        self.assertEqual(self.read_or_none("a"), b"0123456789")
        self.lose("fd = os.open('a', os.O_RDWR | os.O_TRUNC); os.fsync(fd)")
        self.assertEqual(self.read_or_none("a"), b"")

    def test_what_it_can_not_undo_ends_the_process(self):
        for program in ("os.link('a', 'b')", "os.open('a', os.O_RDWR | os.O_DSYNC)",
                        "os.mkdir('d'); os.rename('d', 'e')", "os.posix_fallocate(os.open('a', os.O_RDWR), 0, 9)"):
            with self.assertRaises(AssertionError):
                self.lose("put('a', b'x')\n" + program)

    def random_program(self, chance):
        """Statements, and per file the versions that each sector may have after a loss; version 0 is the synced."""
        lines, versions = [], {}
        for name in "ab":
            lines.append(f"{name} = os.open('{name}', os.O_RDWR)")
            versions[name] = [[b"0"] for _ in range(8)]
        for i in range(chance.randrange(2, 40)):
            name = chance.choice("ab")
            if chance.random() < 0.2:
                lines.append(f"os.fdatasync({name})")
                versions[name] = [[v[-1]] for v in versions[name]]
                continue
            first, count, mark = chance.randrange(8), chance.randrange(1, 4), bytes([65 + i])
            count = min(count, 8 - first)
            lines.append(f"os.pwrite({name}, {mark!r} * {count * SECTOR}, {first * SECTOR})")
            for sector in range(first, first + count):
                versions[name][sector].append(mark)
        return "\n".join(lines), versions

    def test_random_programs(self):
        """A whole loss gives the synced version; a torn one gives each sector one of the versions since."""
        torn_sectors = 0
        for seed in range(1, 61):
            chance = random.Random(seed)
            for name in "ab":
                with open(os.path.join(self.disk.path, name), "wb") as file:
                    file.write(b"0" * 8 * SECTOR)
            program, versions = self.random_program(chance)
            torn = seed % 2 == 1
            self.lose(program, seed if torn else None)
            for name, sectors in versions.items():
                data = self.read_or_none(name)
                self.assertEqual(len(data), 8 * SECTOR)
                for i, allowed in enumerate(sectors):
                    sector = data[i * SECTOR:(i + 1) * SECTOR]
                    self.assertEqual(sector, sector[:1] * SECTOR, f"seed {seed}: torn inside a sector")
                    self.assertIn(sector[:1], allowed if torn else allowed[:1], f"seed {seed}: {program}")
                    torn_sectors += torn and sector[:1] not in (allowed[0], allowed[-1])
        self.assertGreater(torn_sectors, 0)


@needs_preload
class PowerLoss(TestCase):
    ROUNDS = scaled(5, 2)

    def lossy(self, size, flags=()):
        cluster = LossyCluster(os.path.join(self.folder, "cluster"), size, flags=flags)
        self.addCleanup(cluster.stop)
        cluster.start()
        load = Load(cluster, self.folder)
        self.addCleanup(load.kill)
        return cluster, load

    def lose_power(self, cluster, victims, chance, part):
        """All at the same moment; every second time only a part of what was not synced is lost."""
        time.sleep(chance.uniform(0.3, 1.5))  # no condition: any moment of the load will do
        for victim in victims:
            victim.process.signal(9)
        for victim in victims:
            lost = victim.lose_power(chance.randrange(1, 1 << 40) if part else None)
            self.lost = {name: self.lost.get(name, 0) + n for name, n in lost.items()}
        for victim in victims:
            victim.start()
        cluster.wait_healthy()

    def run_losses(self, size, victims_of, flags=()):
        self.lost = {}
        cluster, load = self.lossy(size, flags)
        chance = random.Random(size)
        for i in range(self.ROUNDS):
            keys = {f"/kept/{i}/{n}": str(n) for n in range(5)}
            for key, value in keys.items():
                cluster.ctl("put", key, value)
            self.lose_power(cluster, victims_of(cluster, chance), chance, i % 2 == 1)
            for key, value in keys.items():
                self.assertEqual(cluster.ctl("get", key, "--print-value-only").stdout.strip(), value)
        counts = load.finish(self)
        self.assertGreater(counts["ok"], 100)
        self.assertGreater(self.lost["writes"], 0, "nothing was lost: the test proves nothing")
        cluster.wait_equal()

    def test_single_node(self):
        self.run_losses(1, lambda cluster, _: cluster.nodes)

    def test_one_of_three(self):
        self.run_losses(3, lambda cluster, chance: [chance.choice(cluster.nodes)])

    def test_the_rack(self):
        self.run_losses(3, lambda cluster, _: cluster.nodes)

    def test_small_logs(self):
        """Log segments, checkpoints and compactions come and go all the time."""
        self.run_losses(3, lambda cluster, _: cluster.nodes, ["--snapshot-count", "100"])

    def test_first_start(self):
        """Power fails during the very first start, at any moment of it."""
        chance = random.Random(1)
        for i in range(self.ROUNDS * 2):
            cluster = LossyCluster(os.path.join(self.folder, f"first{i}"), 1)
            self.addCleanup(cluster.stop)
            node = cluster.nodes[0]
            for _ in range(3):
                node.start()
                time.sleep(chance.uniform(0.0, 0.15))  # any moment
                node.lose_power(chance.randrange(1, 1 << 40) if i % 2 else None)
            node.start()
            cluster.wait_healthy()
            etcdctl([node.endpoint], "put", "/a", "1")
            node.lose_power()
            node.start()
            cluster.wait_healthy()
            wait_for(lambda n=node: "1" in n.ctl("get", "/a").stdout, "the acknowledged write", 5)
            node.kill()


if __name__ == "__main__":
    unittest.main()
