"""The disk or the quota is full: writes are refused before anything is at risk, the rest goes on, and with space
again everything is as before, without a restart."""
import os
import subprocess
import unittest

from harness import Cluster, TestCase, wait_for


@unittest.skipUnless(os.geteuid() == 0, "a small file system needs root: run the tests as root")
class Space(TestCase):
    def mounted(self, name, *command):
        folder = os.path.join(self.folder, name)
        os.makedirs(folder, exist_ok=True)
        done = subprocess.run([*command, folder], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            self.skipTest(f"{' '.join(command)}: {done.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", folder], check=False)
        return folder

    def tmpfs(self, name, megabytes):
        return self.mounted(name, "mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs")

    def ext4(self, name, megabytes):
        image = os.path.join(self.folder, name + ".img")
        with open(image, "wb") as file:
            file.truncate(megabytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        return self.mounted(name, "mount", "-o", "loop", image)

    def small_cluster(self, folders):
        """A member in each folder."""
        cluster = Cluster(os.path.join(self.folder, "logs"), len(folders))
        for node, folder in zip(cluster.nodes, folders):
            node.data_dir = os.path.join(folder, node.name)
        self.addCleanup(cluster.stop)
        return cluster.start()

    @staticmethod
    def fill(folder):
        """Somebody else's file takes all that is left."""
        path = os.path.join(folder, "foreign")
        with open(path, "wb", buffering=0) as file:
            block = bytes(1 << 20)
            while len(block) >= 512:
                try:
                    if file.write(block) < len(block):
                        block = block[:len(block) // 2]
                except OSError:
                    block = block[:len(block) // 2]
        return path

    def refused(self, node):
        done = node.ctl("put", "/new", "x" * 1000, check=False)
        return done.returncode != 0 and "database space exceeded" in done.stderr

    def full_and_free_again(self, cluster, full):
        """`full`: the folders that are filled, of some members."""
        node = cluster.nodes[0]
        for i in range(50):
            node.ctl("put", f"/old/{i}", "x" * 20000)
        pids = [n.process.pid for n in cluster.nodes]
        files = [self.fill(folder) for folder in full]
        for each in cluster.nodes:
            wait_for(lambda n=each: self.refused(n), f"{each.name} to refuse writes")
        # Reads, deletes, compaction and defragmentation work, at every member.
        for i, each in enumerate(cluster.nodes):
            self.assertEqual(each.ctl("get", "/old/49", "--print-value-only").stdout,
                             "x" * 20000 + "\n")
            self.assertEqual(each.ctl("del", f"/old/{i}").stdout.strip(), "1")
        for i in range(20, 40):
            self.assertEqual(node.ctl("del", f"/old/{i}").stdout.strip(), "1")
        self.assertIn("NOSPACE", node.ctl("alarm", "list").stdout)
        node.ctl("compaction", str(node.status()["header"]["revision"]))
        node.ctl("defrag")
        self.assertTrue(self.refused(node), "writes are still refused")
        for path in files:
            os.unlink(path)
        for each in cluster.nodes:
            wait_for(lambda n=each: n.ctl("put", "/after", "1", check=False).returncode == 0,
                     f"{each.name} to accept writes again")
        wait_for(lambda: node.ctl("alarm", "list").stdout == "", "the alarm to be gone by itself")
        self.assertEqual([n.process.pid for n in cluster.nodes], pids)
        for each in cluster.nodes:
            self.assertTrue(each.process.running())
        cluster.wait_equal()

    def test_one_member(self):
        folder = self.tmpfs("small", 320)
        cluster = self.small_cluster([folder])
        self.full_and_free_again(cluster, [folder])
        log = cluster.nodes[0].process.log_text()
        self.assertRegex(log, rf"warn space: {folder}/m1: the disk is full or nearly so, \d+ bytes are free")
        self.assertIn("NOSPACE is taken back", log)

    def test_one_member_on_ext4(self):
        folder = self.ext4("small", 400)
        self.full_and_free_again(self.small_cluster([folder]), [folder])

    def test_one_of_three(self):
        """The alarm of one member stops the growth of all."""
        folders = [self.tmpfs("small", 320)]
        for i in range(2):
            folders.append(os.path.join(self.folder, f"large{i}"))
            os.mkdir(folders[-1])
        self.full_and_free_again(self.small_cluster(folders), folders[:1])

    def test_all_of_three(self):
        folders = [self.tmpfs(f"small{i}", 320) for i in range(3)]
        self.full_and_free_again(self.small_cluster(folders), folders)

    def test_restarts_on_a_full_disk(self):
        folder = self.tmpfs("small", 320)
        cluster = self.small_cluster([folder])
        node = cluster.nodes[0]
        node.ctl("put", "/old", "1")
        foreign = self.fill(folder)
        wait_for(lambda: self.refused(node), "refused writes")
        node.kill()
        node.start()
        cluster.wait_healthy()
        self.assertEqual(node.ctl("get", "/old", "--print-value-only").stdout, "1\n")
        wait_for(lambda: self.refused(node), "refused writes")
        os.unlink(foreign)
        wait_for(lambda: node.ctl("put", "/after", "1", check=False).returncode == 0, "writes")

    def test_no_room_for_a_new_member(self):
        folder = self.tmpfs("small", 12)
        cluster = Cluster(os.path.join(self.folder, "logs"), 1)
        node = cluster.nodes[0]
        node.data_dir = os.path.join(folder, "m1")
        self.addCleanup(cluster.stop)
        node.start()
        self.assertNotEqual(node.process.wait(), 0)
        self.assertRegex(node.process.log_text(), r"the disk is too full to start: \d+ bytes are free")


class Quota(TestCase):
    def test_quota_refuses_writes_until_the_operator_made_room(self):
        cluster = self.cluster(1, flags=["--quota-backend-bytes", "16777216"])
        node = cluster.nodes[0]
        value = "x" * 1000000
        refused = None
        for i in range(200):
            done = node.ctl("put", f"/big/{i}", input=value, check=False)
            if done.returncode != 0:
                refused = done
                break
        self.assertIsNotNone(refused, "the quota was never enforced")
        self.assertIn("database space exceeded", refused.stderr)
        self.assertIn("the store is at its quota", node.process.log_text())
        self.assertEqual(node.ctl("get", "/big/0", "--print-value-only").stdout, value + "\n")
        node.ctl("del", "--prefix", "/big/")
        node.ctl("compaction", str(node.status()["header"]["revision"]))
        node.ctl("defrag")
        self.assertIn("NOSPACE", node.ctl("alarm", "list").stdout, "the operator's to disarm")
        node.ctl("alarm", "disarm")
        wait_for(lambda: node.ctl("put", "/after", "1", check=False).returncode == 0,
                 "writes after the space came back")
