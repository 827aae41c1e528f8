"""Backup and restore as an operator does it: snapshot save under load, then new clusters of one and of three members
from the file; and files and directories that must be refused."""
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading

from harness import BUILD, QUORUMD, Cluster, TestCase, etcdctl, scaled, wait_for

QUORUMCTL = os.path.join(BUILD, "ctl", "quorumctl")
KEYS = scaled(400, 100)


def quorumctl(endpoints, *args, check=True, timeout=120):
    done = subprocess.run([QUORUMCTL, "--endpoints", ",".join(endpoints), *args], text=True,
                          capture_output=True, timeout=timeout, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"quorumctl {args}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def keys_at(node, revision):
    """All that is known of every key as of a revision."""
    text = node.ctl("get", "", "--prefix", f"--rev={revision}", "-w", "json").stdout
    return json.loads(text).get("kvs", [])


class Load:
    """Puts and deletes until it is stopped."""

    def __init__(self, endpoints):
        self.endpoints, self.over, self.count = endpoints, False, 0
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.over:
            lines = "".join(f"put load{(self.count + i) % 50:02d} {self.count + i}\n"
                            for i in range(20))
            self.count += 20
            etcdctl(self.endpoints, "txn", input="\n" + lines + "del load07\n\n\n", check=False)

    def stop(self):
        self.over = True
        self.thread.join()


class Backup(TestCase):
    def filled(self, size=1):
        cluster = self.cluster(size)
        for i in range(0, KEYS, 50):
            puts = "".join(f"put k{n:04d} {n}-{'x' * 900}\n" for n in range(i, i + 50))
            cluster.ctl("txn", input="\n" + puts + "\n\n")
        self.lease = cluster.ctl("lease", "grant", "3600").stdout.split()[1]
        cluster.ctl("put", "leased", "kept", f"--lease={self.lease}")
        cluster.ctl("put", "k0000", "changed")
        cluster.ctl("del", "k0001")
        cluster.ctl("compaction", "3")
        return cluster

    def save(self, node, name="backup.db"):
        path = os.path.join(self.folder, name)
        quorumctl([node.endpoint], "snapshot", "save", path)
        self.assertFalse(os.path.exists(path + ".part"))
        return path

    def restore(self, node, path, code=0, flags=None):
        argv = [QUORUMD, "--restore", path, "--data-dir", node.data_dir, "--name", node.name,
                "--initial-advertise-peer-urls", node.peer_url] + (
                    node.cluster_flags if flags is None else flags)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def new_cluster(self, size, path, name):
        made = Cluster(os.path.join(self.folder, name), size)
        self.addCleanup(made.stop)
        for node in made.nodes:
            self.restore(node, path)
        return made.start()

    def status(self, path):
        return json.loads(quorumctl(["127.0.0.1:1"], "snapshot", "status", path, "-w", "json").stdout)


class Restore(Backup):
    def check_restored(self, old, path, made):
        """Every key of the snapshot's revision, on every member of the new cluster."""
        revision = self.status(path)["revision"]
        expected = keys_at(old, revision)
        self.assertGreaterEqual(len(expected), KEYS)
        for node in made.nodes:
            self.assertEqual(keys_at(node, revision), expected, node.name)
            hash_of = f"--rev={revision}"
            hashes = [json.loads(quorumctl([n.endpoint], "endpoint", "hashkv", hash_of, "-w",
                                           "json").stdout)[0]["HashKV"]["hash"]
                      for n in (old, node)]
            self.assertEqual(hashes[0], hashes[1], node.name)
            leased = node.ctl("lease", "timetolive", self.lease, "--keys").stdout
            self.assertIn("granted with TTL(3600s)", leased)
            self.assertIn("leased", leased)
        return revision

    def check_goes_on(self, made, revision):
        """New revisions follow those of the snapshot, for a watcher as well."""
        first = made.nodes[0]
        watch = subprocess.Popen(
            ["etcdctl", "--endpoints", first.endpoint, "watch", "--prefix", "", f"--rev={revision + 1}",
             "-w", "json"], stdout=subprocess.PIPE, text=True,
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"})
        self.addCleanup(watch.wait)
        self.addCleanup(watch.stdout.close)
        self.addCleanup(watch.kill)
        answer = json.loads(made.ctl("put", "after", "restore", "-w", "json").stdout)
        self.assertEqual(answer["header"]["revision"], revision + 1)
        event = json.loads(watch.stdout.readline())["Events"][0]
        self.assertEqual(event["kv"]["mod_revision"], revision + 1)
        made.ctl("lease", "revoke", self.lease)
        for node in made.nodes:
            self.assertEqual(node.ctl("get", "leased").stdout, "")

    def restored(self, size, members):
        old = self.filled(size)
        load = Load(old.endpoints)
        self.addCleanup(load.stop)
        wait_for(lambda: load.count > 100, "some load")
        path = self.save(old.nodes[-1])
        load.stop()
        with open(path, "rb") as file:
            content = file.read()
        self.assertEqual(hashlib.sha256(content[:-32]).digest(), content[-32:])
        made = self.new_cluster(members, path, "new")
        revision = self.check_restored(old.nodes[0], path, made)
        ids = [json.loads(c.ctl("member", "list", "-w", "json").stdout) for c in (old, made)]
        self.assertNotEqual(ids[0]["header"]["cluster_id"], ids[1]["header"]["cluster_id"])
        self.assertEqual(len(ids[1]["members"]), members)
        self.check_goes_on(made, revision)
        made.wait_equal()
        return made

    def test_one_to_one(self):
        made = self.restored(1, 1)
        node = made.nodes[0]
        before = keys_at(node, 0)
        node.kill()
        node.start()
        made.wait_healthy()
        self.assertEqual(keys_at(node, 0), before)

    def test_one_to_three(self):
        made = self.restored(1, 3)
        made.leader().kill()
        left = [n for n in made.nodes if n.process]
        wait_for(lambda: left[0].ctl("put", "more", "1", check=False).returncode == 0, "a new leader")

    def test_three_to_one_grows(self):
        """What was restored takes in a new member, which gets all by a snapshot."""
        made = self.restored(3, 1)
        extra = Cluster(os.path.join(self.folder, "new"), 1).nodes[0]
        extra.name, extra.data_dir = "m9", os.path.join(self.folder, "new", "m9")
        first = made.nodes[0]
        out = quorumctl([first.endpoint], "member", "add", "m9", f"--peer-urls={extra.peer_url}").stdout
        self.assertIn('QUORUMD_INITIAL_CLUSTER_STATE="existing"', out)
        extra.cluster_flags = ["--initial-cluster-state", "existing", "--initial-cluster",
                               f"{first.name}={first.peer_url},m9={extra.peer_url}"]
        made.nodes.append(extra.start())
        made.wait_healthy()
        made.wait_equal()

    def test_etcdctl_saves_too(self):
        old = self.filled()
        path = os.path.join(self.folder, "etcdctl.db")
        done = old.nodes[0].ctl("snapshot", "save", path)
        self.assertIn(f"Snapshot saved at {path}", done.stdout)
        made = self.new_cluster(1, path, "new")
        revision = self.check_restored(old.nodes[0], path, made)
        self.check_goes_on(made, revision)
        status = self.status(path)
        self.assertEqual(status["revision"], revision)
        self.assertEqual(status["totalSize"], os.path.getsize(path) - 32)

    def test_another_token_is_another_cluster(self):
        """Two clusters from one file, at the same addresses: their ids differ, so neither takes the other in."""
        old = self.filled()
        path = self.save(old.nodes[0])
        ids = set()
        for token in ("one", "two"):
            node = Cluster(os.path.join(self.folder, token), 1).nodes[0]
            node.peer_url = "http://127.0.0.1:9"
            said = self.restore(node, path, flags=[
                "--initial-cluster", f"{node.name}={node.peer_url}", "--initial-cluster-token", token])
            ids.add(said.split("cluster ")[1].split()[0])
        self.assertEqual(len(ids), 2)


class Refusals(Backup):
    def setUp(self):
        super().setUp()
        self.old = self.filled()
        self.path = self.save(self.old.nodes[0])
        self.node = Cluster(os.path.join(self.folder, "new"), 1).nodes[0]

    def refused(self, path, code, text):
        said = self.restore(self.node, path, code)
        self.assertIn(text, said)
        self.assertFalse(os.path.exists(self.node.data_dir), said)
        status = quorumctl(["127.0.0.1:1"], "snapshot", "status", path, check=False)
        self.assertEqual(status.returncode, 1, status.stdout)
        self.assertIn(text, status.stderr)

    def changed(self, change):
        path = os.path.join(self.folder, "changed.db")
        with open(self.path, "rb") as file:
            content = bytearray(file.read())
        with open(path, "wb") as file:
            file.write(change(content))
        return path

    def test_damaged(self):
        def flip(content):
            content[len(content) // 2] ^= 4
            return content
        self.refused(self.changed(flip), 1, "SHA-256")

    def test_truncated(self):
        self.refused(self.changed(lambda c: c[:len(c) // 2 + 7]), 1, "cut off")
        self.refused(self.changed(lambda c: c[:len(c) // 1024 * 512 + 32]), 1, "SHA-256")
        self.refused(self.changed(lambda c: b""), 2, "no snapshot of quorumd")

    def test_of_etcd(self):
        theirs = self.etcd()
        theirs.ctl("put", "a", "b")
        path = os.path.join(self.folder, "etcd.db")
        theirs.nodes[0].ctl("snapshot", "save", path)
        self.refused(path, 2, "a snapshot of etcd")
        ours = os.path.join(self.folder, "etcd2.db")  # quorumctl saves from an etcd as well
        quorumctl(theirs.endpoints, "snapshot", "save", ours)
        self.assertIn("revision", theirs.nodes[0].ctl("snapshot", "status", ours, "-w", "json").stdout)

    def test_missing_file(self):
        self.refused(os.path.join(self.folder, "nothing"), 1, "No such file")

    def test_directory_in_use(self):
        said = self.restore(self.old.nodes[0], self.path, 2)
        self.assertIn("name a directory that is new or empty", said)
        self.assertTrue(self.old.nodes[0].healthy())

    def test_permissions(self):
        if os.geteuid() == 0:
            self.skipTest("root may do everything")
        os.chmod(self.path, 0)
        self.assertIn("Permission denied", self.restore(self.node, self.path, 1))
        os.chmod(self.path, 0o600)
        closed = os.path.join(self.folder, "closed")
        os.mkdir(closed, 0o500)
        self.node.data_dir = os.path.join(closed, "data")
        self.assertIn("Permission denied", self.restore(self.node, self.path, 1))

    def test_wrong_settings(self):
        said = self.restore(self.node, self.path, 2, flags=["--initial-cluster", "other=http://127.0.0.1:1"])
        self.assertIn("couldn't find local name", said)
        self.assertFalse(os.path.exists(self.node.data_dir))

    def test_killed_half_way(self):
        """What a restore leaves that was killed is no member, and says so; again, it succeeds."""
        killed = 0
        for _ in range(scaled(40, 10)):
            shutil.rmtree(self.node.data_dir, ignore_errors=True)
            argv = [QUORUMD, "--restore", self.path, "--data-dir", self.node.data_dir, "--name",
                    self.node.name, "--initial-advertise-peer-urls", self.node.peer_url]
            child = subprocess.Popen(argv + self.node.cluster_flags, stdout=subprocess.DEVNULL)
            mark = os.path.join(self.node.data_dir, "unfinished")
            while child.poll() is None and not os.path.exists(mark):
                pass
            child.send_signal(signal.SIGKILL)
            child.wait()
            if not os.path.exists(mark):
                continue
            killed += 1
            start = subprocess.run(self.node.argv(), capture_output=True, text=True, timeout=60,
                                   check=False)
            self.assertEqual(start.returncode, 1, start.stderr)
            self.assertIn("did not end", start.stderr)
            self.assertIn("new or empty", self.restore(self.node, self.path, 2))
        self.assertGreater(killed, 0)
        shutil.rmtree(self.node.data_dir)
        self.restore(self.node, self.path)

    def test_save_refuses(self):
        done = quorumctl(["127.0.0.1:1", "127.0.0.1:2"], "snapshot", "save", "x", check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("one endpoint", done.stderr)
        path = os.path.join(self.folder, "no", "such", "folder")
        done = quorumctl(self.old.endpoints, "snapshot", "save", path, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("No such file", done.stderr)

    def test_lost_connection(self):
        """A server that ends half way leaves no file that could be taken for a snapshot."""
        path = os.path.join(self.folder, "half.db")
        with open(self.path, "rb") as file:
            before = file.read()
        shutil.copy(self.path, path)
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            port = nobody.getsockname()[1]
            done = quorumctl([f"127.0.0.1:{port}", ], "--command-timeout", "1", "snapshot", "save",
                             path, check=False)
        self.assertEqual(done.returncode, 1)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), before)
