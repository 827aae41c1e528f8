"""Random requests, edges and errors included, get the same answers and revisions from etcd."""
import os
import subprocess

from harness import BUILD, TestCase, scaled, takes_long


class Differential(TestCase):
    def differ(self, seed, count):
        ours, theirs = self.cluster(1), self.etcd()
        done = subprocess.run([os.path.join(BUILD, "tests", "integration", "differ"),
                               ours.nodes[0].client_url, theirs.nodes[0].client_url, str(seed),
                               str(count)], capture_output=True, text=True, timeout=900, check=False)
        self.assertEqual(done.returncode, 0, done.stdout[-6000:] + done.stderr)

    @takes_long
    def test_20000_requests(self):
        self.differ(1, scaled(20000, 4000))

    def test_another_seed(self):
        self.differ(int.from_bytes(os.urandom(4), "little"), scaled(3000, 1000))
