"""A new member needs a large snapshot over a link on which no connection lasts as long as that takes."""
import os
import re

from cutting import CuttingProxy
from harness import QUORUMD, TestCase, exclusive, wait_for
from test_members import Growing

MIB = 1024 * 1024
VALUES = 140  # of 1 MB


@exclusive("hundreds of MB through one loop thread")
class Snapshots(TestCase):
    LIMIT = 6 * MIB

    def cluster_with_data(self):
        cluster = Growing(os.path.join(self.folder, "cluster"), 2, QUORUMD, ["--snapshot-count", "50"])
        self.addCleanup(lambda: [n.kill() for n in cluster.all])
        cluster.start()
        for i in range(VALUES):
            cluster.ctl("put", f"/big/{i}", input="x" * 1000000)
        first, new = cluster.all  # by now the log begins behind its first entries: 64 MiB are kept of it
        self.proxy = CuttingProxy(("127.0.0.1", int(new.peer_url.rsplit(":", 1)[1])), self.LIMIT)
        self.addCleanup(self.proxy.close)
        return cluster, first, new

    def add(self, cluster, new):
        """Its peer URL is the proxy's; it listens on its own."""
        listens = new.peer_url
        new.peer_url = f"http://127.0.0.1:{self.proxy.port}"
        cluster.ctl("member", "add", new.name, f"--peer-urls={new.peer_url}", "--learner")
        initial = ",".join(f"{n.name}={n.peer_url}" for n in cluster.all)
        new.cluster_flags = ["--initial-cluster", initial, "--initial-cluster-state", "existing",
                             "--initial-cluster-token", "test", "--listen-peer-urls", listens]
        new.start()

    def resumed(self, first):
        """The offsets, in the words of the sender's log."""
        return [int(n) for n in re.findall(r"goes on from offset (\d+)", first.process.log_text())]

    def wait_caught_up(self, cluster, first, new):
        def there():
            cluster.must_run(new)
            return new.status()["raftAppliedIndex"] >= first.status()["raftAppliedIndex"]
        wait_for(there, f"{new.name} to have everything ({self.proxy.cuts} cuts, {self.resumed(first)})", 120)
        wait_for(lambda: cluster.listed().get(new.name), f"{new.name} to be listed")
        member = cluster.listed()[new.name][2]
        wait_for(lambda: cluster.ctl("member", "promote", f"{member:x}", check=False).returncode == 0 or
                 not cluster.listed()[new.name][0], f"the promotion of {new.name}")
        cluster.nodes = cluster.all
        cluster.wait_equal()

    def check_resumed(self, first, least):
        offsets = self.resumed(first)
        self.assertGreaterEqual(len(offsets), least, first.process.log_tail())
        self.assertEqual(offsets, sorted(offsets))
        self.assertEqual(first.process.log_text().count("begins anew"), 0)
        print(f"    {self.proxy.cuts} cuts, {len(offsets)} resumed, {self.proxy.carried / MIB:.0f} MiB carried "
              f"for {VALUES} MB", flush=True)
        # What was on its way in a cut connection is all that may have been sent twice.
        self.assertLess(self.proxy.carried, VALUES * 1.2 * MIB + self.proxy.cuts * 2 * MIB)

    def test_every_connection_is_cut(self):
        """Before streams could be gone on with, each connection began the snapshot anew, and this never ended."""
        cluster, first, new = self.cluster_with_data()
        self.add(cluster, new)
        self.wait_caught_up(cluster, first, new)
        self.check_resumed(first, VALUES // 10)

    def test_killed_in_the_middle(self):
        """The new member is killed again and again: it goes on with what it has on its disk."""
        cluster, first, new = self.cluster_with_data()
        self.add(cluster, new)
        for i in range(3):
            wait_for(lambda i=i: self.proxy.carried > (i + 1) * VALUES * MIB // 5, "a part of the snapshot")
            new.kill()
            new.start()
        self.wait_caught_up(cluster, first, new)
        self.check_resumed(first, 3)
        # Nothing is left of the transfer.
        store = os.path.join(new.data_dir, "member", "store")
        wait_for(lambda: len([n for n in os.listdir(store) if n.endswith(".db")]) == 1, "one database")
