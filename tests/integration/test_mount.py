"""The mount as a file system: copies, agreement with etcdctl, no torn or stale reads."""
import ctypes
import os
import stat
import subprocess
import threading

from harness import Mount, TestCase, scaled, takes_long, wait_for


class TwoMounts(TestCase):
    def setUp(self):
        super().setUp()
        self.servers = self.cluster(3)
        self.a = self.mount(self.servers.source(first=0), "mnt1")
        self.b = self.mount(self.servers.source(first=1), "mnt2")

    def source_tree(self):
        """A copy of /etc on the local disk that nothing changes meanwhile."""
        tree = os.path.join(self.folder, "etc")
        # Without what a store of configuration can't hold: devices, sockets, unreadable files.
        self.shell(f"cp -r --preserve=mode,links,timestamps /etc {tree} 2>/dev/null; "
                   f"find {tree} ! -type f ! -type d ! -type l -delete; "
                   f"find {tree} -type f -size +1400k -delete; true")
        return tree

    def test_copy_etc(self):
        tree = self.source_tree()
        self.shell(f"cp -r --preserve=mode,links {tree} {self.a.path('etc')}")
        self.shell(f"diff -r --no-dereference {tree} {self.b.path('etc')}")
        listing = "find . -printf '%P %y %m %l\\n' | sort"
        self.assertEqual(self.shell(listing, cwd=tree).stdout,
                         self.shell(listing, cwd=self.b.path("etc")).stdout)
        compared = 0
        everything = self.all_values("/etc/")
        for folder, _, names in os.walk(tree):
            for name in names:
                path = os.path.join(folder, name)
                key = "/etc/" + os.path.relpath(path, tree)
                if os.path.islink(path):
                    continue
                self.assertEqual(everything.get(key), self.read(path), key)
                compared += 1
        self.assertGreater(compared, 100)

    def all_values(self, prefix):
        import base64
        import json
        reply = json.loads(self.servers.ctl("get", "--prefix", prefix, "-w", "json").stdout)
        return {base64.b64decode(kv["key"]).decode("utf-8", "surrogateescape"):
                base64.b64decode(kv.get("value", "")) for kv in reply["kvs"]}

    def test_etcdctl_put_is_seen_by_both_at_once(self):
        for i in range(scaled(100, 20)):
            self.servers.nodes[2].ctl("put", "/dir/key", f"value {i}")
            for mount in (self.a, self.b):
                self.assertEqual(self.read(mount.path("dir/key")), f"value {i}".encode())

    @takes_long
    def test_never_an_older_value(self):
        ours, theirs = self.a.path("counter"), self.b.path("counter")
        for i in range(scaled(10000, 1000)):
            with open(ours, "w", encoding="ascii") as file:
                file.write(f"{i}")
            with open(theirs, encoding="ascii") as file:
                self.assertEqual(file.read(), f"{i}")

    def torn_reads(self, rewrite):
        """B reads in 4 KiB pieces while `rewrite` saves whole files of one letter each on A."""
        size = 200 * 1024
        path = self.a.path("big")
        source = os.path.join(self.folder, "letters")
        with open(path, "w", encoding="ascii") as file:
            file.write("a" * size)
        ending = threading.Event()
        problems = []

        def write():
            i = 0
            try:
                while not ending.is_set():
                    i += 1
                    with open(source, "w", encoding="ascii") as file:
                        file.write(chr(ord("a") + i % 26) * size)
                    rewrite(source, path, chr(ord("a") + i % 26))
            except Exception as error:  # noqa: BLE001 -- handed to the test's thread
                problems.append(error)

        writer = threading.Thread(target=write)
        writer.start()
        versions = set()
        try:
            for _ in range(scaled(400, 60)):
                with open(self.b.path("big"), "rb", buffering=0) as file:
                    content = b""
                    while piece := file.read(4096):
                        content += piece
                self.assertEqual(len(content), size)
                self.assertEqual(len(set(content)), 1, "a mix of two versions")
                versions.add(content[:1])
        finally:
            ending.set()
            writer.join()
        self.assertFalse(problems)
        self.assertGreater(len(versions), 1)

    def test_never_torn_by_redirection(self):
        self.torn_reads(lambda source, path, _: self.shell(f"cat {source} > {path}"))

    def test_never_torn_by_cp(self):
        self.torn_reads(lambda source, path, _: self.shell(f"cp {source} {path}"))

    def test_never_torn_by_sed(self):
        self.torn_reads(lambda _, path, letter: self.shell(f"sed -i 's/./{letter}/g' {path}"))

    def test_tail_sees_appends(self):
        log = self.a.path("log")
        self.shell(f"echo one > {log}")
        tail = subprocess.Popen(["tail", "-f", "-n", "+1", "-s", "0.1", self.b.path("log")],
                                stdout=subprocess.PIPE, text=True)
        self.addCleanup(tail.kill)
        self.assertEqual(tail.stdout.readline(), "one\n")
        for word in ("two", "three"):
            self.shell(f"echo {word} >> {log}")
            self.assertEqual(tail.stdout.readline(), word + "\n")
        tail.kill()
        tail.wait()
        tail.stdout.close()

    def test_appends_from_two_mounts_lose_no_line(self):
        count = scaled(200, 40)
        writers = [subprocess.Popen(["bash", "-c", f"for i in $(seq {count}); do "
                                     f"echo {name}$i >> {mount.path('lines')} || exit 1; done"])
                   for name, mount in (("a", self.a), ("b", self.b))]
        for writer in writers:
            self.assertEqual(writer.wait(120), 0)
        lines = self.read(self.a.path("lines")).decode().split()
        self.assertEqual(sorted(lines), sorted(f"{n}{i + 1}" for n in "ab" for i in range(count)))

    def test_exclusive_create_has_one_winner(self):
        for i in range(scaled(50, 10)):
            racers = [subprocess.Popen(["bash", "-c", f"set -C; echo {n} > {m.path(f'lock{i}')}"],
                                       stderr=subprocess.DEVNULL)
                      for n, m in (("a", self.a), ("b", self.b))]
            winners = [r.wait(60) == 0 for r in racers]
            self.assertEqual(sum(winners), 1)
            self.assertEqual(self.read(self.a.path(f"lock{i}")),
                             b"a\n" if winners[0] else b"b\n")

    def test_kill_each_member_during_a_copy(self):
        tree = self.source_tree()
        copy = subprocess.Popen(["cp", "-r", "--preserve=mode,links", tree, self.a.path("etc")],
                                stderr=subprocess.PIPE, text=True)
        for victim in [self.servers.leader()] + self.servers.nodes:
            victim.kill()
            victim.start()
            self.servers.wait_healthy([victim])
        problems = copy.communicate(timeout=600)[1]
        self.servers.wait_equal()
        refused = [line for line in problems.splitlines()]
        if not refused:
            self.shell(f"diff -r --no-dereference {tree} {self.b.path('etc')}")
            return
        for folder, _, names in os.walk(tree):  # an honest error: each file is whole or absent
            for name in names:
                path = os.path.join(folder, name)
                there = self.b.path("etc", os.path.relpath(path, tree))
                if not os.path.islink(path) and os.path.exists(there):
                    self.assertEqual(self.read(there), self.read(path), there)


class OneMount(TestCase):
    def setUp(self):
        super().setUp()
        self.servers = self.cluster(1)
        self.mnt = self.mount(self.servers.source())

    def test_modes_owners_times_links(self):
        path = self.mnt.path("f")
        self.shell(f"echo x > {path}; chmod 640 {path}; chown 12:34 {path}; "
                   f"touch -d 2001-02-03T04:05:06Z {path}; ln -s some/where {self.mnt.path('l')}; "
                   f"mkdir -m 711 {self.mnt.path('d')}")
        self.mnt.stop()
        again = self.mount(self.servers.source(), "again")
        info = os.stat(again.path("f"))
        self.assertEqual((stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime),
                         (0o640, 12, 34, 981173106))
        self.assertEqual(os.readlink(again.path("l")), "some/where")
        self.assertEqual(stat.S_IMODE(os.stat(again.path("d")).st_mode), 0o711)
        self.assertEqual(self.servers.ctl("get", "/f").stdout, "/f\nx\n\n")

    def test_directories(self):
        m = self.mnt.path
        self.shell(f"mkdir -p {m('a/b/c')} && touch {m('a/b/c/f')} && rm {m('a/b/c/f')} && "
                   f"test -d {m('a/b/c')} && ! rmdir {m('a/b')} 2>/dev/null && rmdir {m('a/b/c')} &&"
                   f" echo 1 > {m('a/b/1')} && mv {m('a')} {m('z')} && test ! -e {m('a')}")
        self.assertEqual(self.read(m("z/b/1")), b"1\n")
        self.assertEqual(os.listdir(m("z")), ["b"])
        self.shell(f"rm -r {m('z')}")
        self.assertEqual(os.listdir(m()), [])
        self.assertEqual(self.servers.ctl("get", "--prefix", "/", "--keys-only").stdout.strip(), "")

    def test_directory_rename_is_one_revision(self):
        m = self.mnt.path
        self.shell(f"mkdir {m('d')}; for i in 1 2 3; do echo $i > {m('d')}/$i; done")
        before = self.servers.nodes[0].status()["header"]["revision"]
        os.rename(m("d"), m("e"))
        after = self.servers.nodes[0].status()["header"]["revision"]
        self.assertEqual(after, before + 1)
        self.assertEqual(sorted(os.listdir(m("e"))), ["1", "2", "3"])

    def test_exchange_and_noreplace(self):
        m = self.mnt.path
        self.shell(f"echo a > {m('a')}; echo b > {m('b')}")
        libc = ctypes.CDLL(None, use_errno=True)

        def renameat2(old, new, flags):
            done = libc.renameat2(-100, old.encode(), -100, new.encode(), flags)
            return 0 if done == 0 else ctypes.get_errno()

        self.assertEqual(renameat2(m("a"), m("b"), 1), 17)  # NOREPLACE: EEXIST
        self.assertEqual(renameat2(m("a"), m("b"), 2), 0)  # EXCHANGE
        self.assertEqual((self.read(m("a")), self.read(m("b"))), (b"b\n", b"a\n"))

    def test_keys_that_no_path_can_spell(self):
        keys = ["/x", "/x/y", "//double", "/dot/./a", "/dot/../a", "/" + "n" * 300, "/p%41", "/%",
                "/trail/", "/sp ace", "/new\nline"]
        for key in keys:
            self.servers.ctl("put", "--", key, "v:" + key)
        found = {}
        for folder, _, names in os.walk(self.mnt.point):
            for name in names:
                path = os.path.join(folder, name)
                found[os.getxattr(path, "user.quorumfs.key").decode()] = self.read(path).decode()
        for key in keys:
            if key != "/trail/":  # an ordinary directory's own key shows as the directory
                self.assertEqual(found.get(key), "v:" + key, key)

    def test_control_directory(self):
        import json
        m = self.mnt.path
        self.assertNotIn(".quorumfs", os.listdir(m()))
        status = json.loads(self.read(m(".quorumfs/status")))
        self.assertEqual((status["quorum"], status["failures_tolerated"]), (1, 0))
        self.shell(f"echo 1 > {m('k')}")
        revision = int(self.read(m(".quorumfs/revision")))
        self.assertEqual(revision, self.servers.nodes[0].status()["header"]["revision"])
        wait_for(lambda: b" m1 " in self.read(m(".quorumfs/members")), "the member's name")
        self.assertTrue(self.read(m(".quorumfs/leader")).strip())
        self.assertEqual(sorted(os.listdir(m(".quorumfs"))),
                         ["leader", "members", "revision", "status", "unsaved"])
        self.assertEqual(os.listdir(m(".quorumfs/unsaved")), [])
        self.assertEqual(os.getxattr(m("k"), "user.quorumfs.version"), b"1")
        self.assertEqual(os.getxattr(m("k"), "user.quorumfs.mod_revision"), str(revision).encode())

    def test_too_large_a_file(self):
        path = self.mnt.path("large")
        done = subprocess.run(["dd", "if=/dev/zero", f"of={path}", "bs=1M", "count=3"],
                              capture_output=True, text=True, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("File too large", done.stderr)
        self.assertEqual(self.servers.ctl("get", "/large", "--keys-only").stdout.strip(), "")
        self.assertFalse(os.path.exists(path))
        self.assertEqual(len(os.listdir(self.mnt.path(".quorumfs/unsaved"))), 1)

    def test_no_quorum_is_an_error_in_time(self):
        servers = self.cluster(3, name="three")
        mount = self.mount(servers.source(), "q", options=["timeout=3"])
        self.shell(f"echo before > {mount.path('f')}")
        for node in servers.nodes[1:]:
            node.kill()
        for script in (f"echo no > {mount.path('f')}", f"cat {mount.path('f')}"):
            done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60,
                                  check=False)
            self.assertNotEqual(done.returncode, 0, script)
        for node in servers.nodes[1:]:
            node.start()
        servers.wait_healthy()
        wait_for(lambda: self.read(mount.path("f")) == b"before\n", "the old content")
        self.shell(f"echo after > {mount.path('f')}")

    @takes_long
    def test_stale_reads_if_chosen(self):
        servers = self.cluster(3, name="three")
        mount = self.mount(servers.source(), "q", options=["timeout=2", "stale=allow"])
        self.shell(f"echo before > {mount.path('f')}; cat {mount.path('f')}")
        for node in servers.nodes[1:]:
            node.kill()
        self.assertEqual(self.read(mount.path("f")), b"before\n")

    def test_embedded(self):
        from harness import free_port
        data = os.path.join(self.folder, "data")
        listen = f"http://127.0.0.1:{free_port()}"
        embedded = self.mount(data, "emb", options=[f"listen={listen}"])
        self.shell(f"echo hello > {embedded.path('greeting')}")
        from harness import QUORUMD, Cluster, etcdctl
        self.assertEqual(etcdctl([listen], "get", "/greeting").stdout, "/greeting\nhello\n\n")
        self.assertEqual(embedded.stop(), 0)
        served = Cluster(os.path.join(self.folder, "served"), 1, program=QUORUMD)
        node = served.nodes[0]
        node.data_dir, node.name = data, "default"
        self.addCleanup(served.stop)
        node.argv = lambda: [QUORUMD, "--data-dir", data, "--listen-client-urls", node.client_url,
                             "--advertise-client-urls", node.client_url]
        served.start()
        self.assertEqual(node.ctl("get", "/greeting").stdout, "/greeting\nhello\n\n")

    def test_mounts_etcd(self):
        etcd = self.etcd()
        mount = self.mount(etcd.source(), "e")
        self.shell(f"mkdir {mount.path('d')}; echo 1 > {mount.path('d/f')}; "
                   f"sed -i s/1/2/ {mount.path('d/f')}")
        self.assertEqual(etcd.ctl("get", "/d/f").stdout, "/d/f\n2\n\n")
        etcd.ctl("put", "/d/f", "3")
        self.assertEqual(self.read(mount.path("d/f")), b"3")

    def test_100_mounts_leave_nothing(self):
        ours = self.folder.encode()
        mounts_before = self.read("/proc/mounts").count(ours)
        for i in range(scaled(100, 20)):
            mount = Mount(self.servers.source(), os.path.join(self.folder, "again"), self.folder)
            self.shell(f"echo {i} > {mount.path('i')}; cat {mount.path('i')}")
            self.assertEqual(mount.stop(), 0)
        self.assertEqual(self.read("/proc/mounts").count(ours), mounts_before)
        node = self.servers.nodes[0]
        wait_for(lambda: len(os.listdir(f"/proc/{node.process.pid}/fd")) < 60,
                 "the daemon to close the connections")
