"""A leader whose disk hangs: another one leads soon, and the hung one says that it is ill."""
import os
import time

from harness import BUILD, QUORUMD, Cluster, TestCase, wait_for
from load import writes_work
from lossy import needs_preload

LIBRARY = os.path.join(BUILD, "tests", "fault", "hanging.so")
BOUND_S = 20  # with the default election timeout of 1 s it takes about 2 s; the machine may be busy


@needs_preload
class SlowDisk(TestCase):
    def test_a_leader_with_a_hung_disk_is_replaced(self):
        cluster = Cluster(os.path.join(self.folder, "hung"), 3, QUORUMD)
        for node in cluster.nodes:
            node.hang = os.path.join(self.folder, node.name + ".hang")
            node.environment = {"LD_PRELOAD": LIBRARY, "HANGING_FILE": node.hang}
            self.addCleanup(node.kill)
        cluster.start()
        cluster.ctl("put", "/before", "1")
        old = cluster.leader()
        others = [n for n in cluster.nodes if n is not old]
        open(old.hang, "w", encoding="ascii").close()
        begun = time.monotonic()
        # Something to be synced; it may be answered by the next leader only.
        old.ctl("--command-timeout=1s", "put", "/hung", "1", check=False)
        member = old.status()["header"]["member_id"]
        wait_for(lambda: others[0].status().get("leader") not in (None, 0, member), "another leader")
        self.assertLess(time.monotonic() - begun, BOUND_S)
        writes_work(cluster, others)
        wait_for(lambda: any("disk of the log hangs" in e for e in old.status().get("errors", [])),
                 "the hung member to say so")
        self.assertIn("the disk of the log hangs", old.process.log_text())
        # A linearizable read there fails; that it ends by itself is test_replica_disk's (etcdctl asks again).
        self.assertNotEqual(old.ctl("--command-timeout=3s", "get", "/before", check=False).returncode, 0)
        os.remove(old.hang)
        cluster.wait_healthy()
        cluster.wait_equal()
