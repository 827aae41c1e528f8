"""quorumd --rescue: what can be read of a damaged data directory goes into a new one, and the rest is named."""
import glob
import os
import subprocess

from harness import QUORUMD, TestCase, wait_for

KEYS = 400
PAGE = 4096


def value(i):
    return f"value-{i:04d}-" + "x" * 900


def overwrite(path, at, data):
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


class Rescue(TestCase):
    def filled(self, graceful=False):
        """A cluster of one with KEYS keys, one of them with a lease; ended, by kill -9 or in good order."""
        node = self.cluster(1).nodes[0]
        for i in range(0, KEYS, 50):
            puts = "".join(f"put k{n:04d} {value(n)}\n" for n in range(i, i + 50))
            node.ctl("txn", input="\n" + puts + "\n\n")
        lease = node.ctl("lease", "grant", "3600").stdout.split()[1]
        node.ctl("put", "leased", "kept", f"--lease={lease}")
        node.ctl("put", "k0000", "changed")
        self.revision = int(node.ctl("endpoint", "status", "-w", "json").stdout.split('"revision":')[1]
                            .split(",")[0])
        if graceful:
            self.assertEqual(node.stop(), 0)
        else:
            node.kill()
        self.store = os.path.join(node.data_dir, "member", "store", "store.db")
        self.logs = sorted(glob.glob(os.path.join(node.data_dir, "member", "log", "*.wal")))
        return node

    def rescue(self, node, code):
        fresh = os.path.join(self.folder, "rescued")
        argv = [QUORUMD, "--rescue", fresh] + node.argv()[1:]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        self.damaged_dir, node.data_dir = node.data_dir, fresh
        node.start()
        wait_for(node.healthy, "the rescued member to be healthy")
        return done.stdout

    def present(self, node):
        """What the rescued member has, all of it right."""
        lines = node.ctl("get", "", "--prefix").stdout.splitlines()
        kvs = dict(zip(lines[::2], lines[1::2]))
        for key, is_ in kvs.items():
            if key.startswith("k") and key != "k0000":
                self.assertEqual(is_, value(int(key[1:])))
        return kvs

    def check_whole(self, node):
        kvs = self.present(node)
        self.assertEqual(len(kvs), KEYS + 1)
        self.assertEqual(kvs["k0000"], "changed")
        self.assertEqual(kvs["leased"], "kept")
        self.assertIn(f'"revision":{self.revision},', node.ctl("get", "k0001", "-w", "json").stdout)
        node.ctl("put", "new", "value")

    def page_of(self, text):
        """The page of the store's file that holds a value, found by what stands in it."""
        with open(self.store, "rb") as file:
            at = file.read().find(text.encode())
        self.assertGreater(at, 0)
        return at - at % PAGE

    def test_nothing_damaged(self):
        node = self.filled()
        said = self.rescue(node, 0)
        self.assertIn("all was rescued", said)
        self.check_whole(node)

    def test_a_row_is_still_in_the_log(self):
        node = self.filled(graceful=True)
        overwrite(self.store, self.page_of(value(200)), os.urandom(PAGE))
        self.rescue(node, 0)
        self.check_whole(node)

    def test_store_header(self):
        node = self.filled()
        overwrite(self.store, 0, os.urandom(200))
        self.rescue(node, 0)
        self.check_whole(node)

    def test_log_middle(self):
        """The store has what a close in good order wrote: a log that is damaged loses nothing of that."""
        node = self.filled(graceful=True)
        overwrite(self.logs[0], 16 * 1024, os.urandom(64 * 1024))
        said = self.rescue(node, 1)
        self.assertIn(os.path.basename(self.logs[0]), said)
        self.check_whole(node)

    def test_log_middle_after_a_kill(self):
        node = self.filled()
        overwrite(self.logs[0], 200 * 1024, os.urandom(4096))
        said = self.rescue(node, 1)
        self.assertIn("is damaged, behind entry", said)
        kvs = self.present(node)
        self.assertGreater(len(kvs), 50)

    def test_row_and_log(self):
        """Damage to both: the rows that are sound stay, at their revisions, and the others are named."""
        node = self.filled(graceful=True)
        overwrite(self.store, self.page_of(value(200)), os.urandom(PAGE))
        overwrite(self.logs[0], 0, os.urandom(512))
        said = self.rescue(node, 1)
        self.assertIn("can't be read", said)
        kvs = self.present(node)
        self.assertGreater(len(kvs), KEYS - 20)
        self.assertLess(len(kvs), KEYS + 1)
        self.assertEqual(kvs["k0000"], "changed")
        node.ctl("put", "new", "value")

    def test_header_and_log(self):
        node = self.filled(graceful=True)
        overwrite(self.store, 0, os.urandom(PAGE))
        overwrite(self.logs[0], 0, os.urandom(512))
        said = self.rescue(node, 1)
        self.assertIn("first page was made anew", said)
        self.assertEqual(len(self.present(node)), KEYS + 1)

    def test_usage(self):
        node = self.filled()
        for argv in ([QUORUMD, "--rescue", node.data_dir, "--data-dir", node.data_dir],
                     [QUORUMD, "--rescue", os.path.join(self.folder, "new"), "--data-dir",
                      os.path.join(self.folder, "nothing")]):
            done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
        self.assertFalse(os.path.exists(os.path.join(self.folder, "new")))
