"""The first command of the README: it starts, shows, is idempotent, and stops what it started."""
import os
import subprocess
import unittest

from harness import BUILD, SANITIZED, TestCase, etcdctl, exclusive

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@exclusive("its ports are those that users get")
@unittest.skipIf(SANITIZED, "the quick start builds and runs the release build: tested with that")
class QuickStart(TestCase):
    def quickstart(self, *args):
        done = subprocess.run(["sh", os.path.join(ROOT, "packaging", "quickstart.sh"), "--dir",
                               self.start_dir, *args], capture_output=True, text=True, timeout=600,
                              check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def setUp(self):
        super().setUp()
        self.assertTrue(BUILD)
        self.start_dir = os.path.join(self.folder, "quick start")
        self.addCleanup(lambda: self.quickstart("--stop"))

    def test_one_node(self):
        said = self.quickstart()
        self.assertIn("--stop", said)
        mnt = os.path.join(self.start_dir, "mnt")
        self.assertTrue(os.path.ismount(mnt))
        with open(os.path.join(mnt, "note"), "w", encoding="ascii") as file:
            file.write("kept")
        self.quickstart()  # again: the same one goes on
        self.assertEqual(self.read(os.path.join(mnt, "note")), b"kept")
        self.quickstart("--stop")
        self.assertFalse(os.path.ismount(mnt))
        self.quickstart()
        self.assertEqual(self.read(os.path.join(mnt, "note")), b"kept")

    def test_three_nodes(self):
        self.quickstart("--nodes", "3")
        one, two = (os.path.join(self.start_dir, f"mnt{i}") for i in (1, 2))
        with open(os.path.join(one, "shared"), "w", encoding="ascii") as file:
            file.write("by one")
        self.assertEqual(self.read(os.path.join(two, "shared")), b"by one")
        ports = (2379, 22379, 32379)
        self.assertEqual(etcdctl([f"127.0.0.1:{p}" for p in ports], "get", "/shared").stdout,
                         "/shared\nby one\n")
        self.quickstart("--stop")
        self.assertFalse(os.path.ismount(one) or os.path.ismount(two))
