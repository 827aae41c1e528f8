"""inotify on one mount reports what a local file system would, for changes made elsewhere."""
import ctypes
import os
import select
import struct
import subprocess

from harness import TestCase, scaled, wait_for

IN = {0x2: "MODIFY", 0x4: "ATTRIB", 0x8: "CLOSE_WRITE", 0x40: "MOVED_FROM", 0x80: "MOVED_TO",
      0x100: "CREATE", 0x200: "DELETE", 0x400: "DELETE_SELF", 0x800: "MOVE_SELF"}
MASK = sum(IN)


class Watcher:
    """Watches directories with inotify(7) and collects (event, name)."""

    def __init__(self, *folders):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self.libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self.folders = {}
        for folder in folders:
            descriptor = self.libc.inotify_add_watch(self.fd, folder.encode(), MASK)
            if descriptor < 0:
                raise OSError(ctypes.get_errno(), folder)
            self.folders[descriptor] = folder
        self.events = []

    def poll(self, wait_s=0.05):
        while select.select([self.fd], [], [], wait_s)[0]:
            data = os.read(self.fd, 1 << 16)
            while data:
                descriptor, mask, _, size = struct.unpack_from("iIII", data)
                name = data[16:16 + size].rstrip(b"\0").decode()
                data = data[16 + size:]
                for bit, word in IN.items():
                    if mask & bit:
                        self.events.append((word, name, os.path.basename(
                            self.folders.get(descriptor, "?"))))
                if mask & 0x4000:
                    self.events.append(("OVERFLOW", "", ""))
        return self.events

    def close(self):
        os.close(self.fd)


class Events(TestCase):
    def setUp(self):
        super().setUp()
        self.servers = self.cluster(1)
        self.a = self.mount(self.servers.source(), "mnt1")
        self.b = self.mount(self.servers.source(), "mnt2")
        self.shell(f"mkdir {self.a.path('d')} && echo x > {self.a.path('d/old')} && "
                   f"ls -l {self.b.path('d')} && cat {self.b.path('d/old')}")

    def watch(self, folder):
        watcher = Watcher(folder)
        self.addCleanup(watcher.close)
        return watcher

    def expect(self, watcher, wanted):
        wanted = [(w, n) for w, n in wanted]
        wait_for(lambda: len([e for e in watcher.poll() if e[0] != "ATTRIB"]) >= len(wanted),
                 f"events {wanted}, got {watcher.events}", 20)
        watcher.poll(0.3)  # nothing more comes
        self.assertEqual([(e[0], e[1]) for e in watcher.events if e[0] != "ATTRIB"], wanted)
        watcher.events.clear()

    def test_changes_by_etcdctl(self):
        watcher = self.watch(self.b.path("d"))
        self.servers.ctl("put", "/d/new", "1")
        self.expect(watcher, [("CREATE", "new"), ("MODIFY", "new"), ("CLOSE_WRITE", "new")])
        self.servers.ctl("put", "/d/new", "22")
        self.expect(watcher, [("MODIFY", "new"), ("CLOSE_WRITE", "new")])
        self.assertEqual(self.read(self.b.path("d/new")), b"22")
        self.servers.ctl("del", "/d/new")
        self.expect(watcher, [("DELETE", "new")])

    def test_changes_on_another_mount(self):
        watcher = self.watch(self.b.path("d"))
        a = self.a.path
        self.shell(f"echo 1 > {a('d/f')}")
        self.expect(watcher, [("CREATE", "f"), ("MODIFY", "f"), ("CLOSE_WRITE", "f")])
        self.shell(f"sed -i s/1/2/ {a('d/f')}")
        self.expect(watcher, [("MODIFY", "f"), ("CLOSE_WRITE", "f")])
        self.shell(f"mkdir {a('d/sub')}")
        self.expect(watcher, [("CREATE", "sub")])
        self.shell(f"rmdir {a('d/sub')}")
        self.expect(watcher, [("DELETE", "sub")])
        self.shell(f"mv {a('d/f')} {a('d/g')}")
        self.expect(watcher, [("MOVED_FROM", "f"), ("MOVED_TO", "g")])
        self.shell(f"rm {a('d/g')}")
        self.expect(watcher, [("DELETE", "g")])

    def test_own_changes_come_once(self):
        watcher = self.watch(self.b.path("d"))
        self.shell(f"echo 1 > {self.b.path('d/own')}")
        self.expect(watcher, [("CREATE", "own"), ("MODIFY", "own"), ("CLOSE_WRITE", "own")])
        self.shell(f"rm {self.b.path('d/own')}")
        self.expect(watcher, [("DELETE", "own")])

    def test_expired_lease_is_a_delete(self):
        import json
        lease = json.loads(self.servers.ctl("lease", "grant", "3", "-w", "json").stdout)["ID"]
        watcher = self.watch(self.b.path("d"))
        self.servers.ctl("put", f"--lease={lease:x}", "/d/leased", "1")
        self.expect(watcher, [("CREATE", "leased"), ("MODIFY", "leased"), ("CLOSE_WRITE", "leased")])
        self.expect(watcher, [("DELETE", "leased")])

    def test_watch_on_a_single_file(self):
        watcher = self.watch(self.b.path("d/old"))
        self.servers.ctl("put", "/d/old", "changed")
        self.expect(watcher, [("MODIFY", ""), ("CLOSE_WRITE", "")])
        self.assertEqual(self.read(self.b.path("d/old")), b"changed")

    def test_inotifywait_recursive(self):
        waiter = subprocess.Popen(["inotifywait", "-m", "-r", "-q", "--format", "%e %w%f",
                                   self.b.point], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True)
        self.addCleanup(waiter.kill)
        self.servers.ctl("put", "/d/probe", "1")
        seen = []
        number = 0
        while not any("probe" in line for line in seen):
            ready, _, _ = select.select([waiter.stdout], [], [], 1)
            if ready:
                seen.append(waiter.stdout.readline())
            else:  # it had not set its watches yet
                number += 1
                self.servers.ctl("put", "/d/probe", str(number))
                self.assertLess(number, 60)
        waiter.kill()
        waiter.wait()
        waiter.stdout.close()

    def test_no_final_event_is_lost(self):
        """Thousands of changes over 50 files: the last state of each was announced after it was made."""
        watcher = self.watch(self.b.path("d"))
        count = scaled(10000, 1000)
        files = [f"n{i}" for i in range(50)]
        for name in files:
            self.servers.ctl("put", f"/d/{name}", "first")
        for base in range(0, count, 50):
            puts = "".join(f"put /d/{name} {base}\n" for name in files)
            self.servers.ctl("txn", input="\n" + puts + "\n\n")
            watcher.poll(0)
        for name in files:
            self.servers.ctl("put", f"/d/{name}-last", "end")
        wanted = {f"{name}-last" for name in files}
        wait_for(lambda: wanted <= {e[1] for e in watcher.poll() if e[0] == "CLOSE_WRITE"},
                 "the last events")
        self.assertNotIn("OVERFLOW", {e[0] for e in watcher.events})
        self.assertTrue(set(files) <= {e[1] for e in watcher.events if e[0] == "CLOSE_WRITE"})
        for name in files:
            self.assertEqual(self.read(self.b.path("d", name)), str(count - 50).encode())
