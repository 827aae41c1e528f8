"""Bad input: one clear line that names the thing, an exit code, and nothing lost."""
import os
import random
import socket
import subprocess

from harness import QUORUMD, QUORUMFS, TestCase, free_port, scaled


class BadInput(TestCase):
    def refused(self, argv, *words, code=None):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        self.assertNotEqual(done.returncode, 0, argv)
        self.assertGreater(done.returncode, 0, f"ended by a signal: {done.stderr}")
        if code is not None:
            self.assertEqual(done.returncode, code, done.stderr)
        errors = [line for line in done.stderr.splitlines() if " info " not in line]
        self.assertEqual(len(errors), 1, done.stderr)
        for word in words:
            self.assertIn(word, errors[0])

    def test_quorumd_flags(self):
        data = os.path.join(self.folder, "data")
        self.refused([QUORUMD, "--data-dri", data], "--data-dri", code=2)
        self.refused([QUORUMD, "--data-dir", data, "--listen-client-urls", "ftp://x"], "ftp://x",
                     code=2)
        self.refused([QUORUMD, "--data-dir", data, "--heartbeat-interval", "soon"], "soon", code=2)
        self.refused([QUORUMD, "--data-dir", data, "--initial-cluster", "nonsense"], "nonsense")
        self.refused([QUORUMD, "--data-dir", "/proc/nowhere"], "/proc/nowhere")
        self.assertFalse(os.path.exists(data))

    def test_address_in_use(self):
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            port = holder.getsockname()[1]
            self.refused([QUORUMD, "--data-dir", os.path.join(self.folder, "d"),
                          "--listen-client-urls", f"http://127.0.0.1:{port}",
                          "--advertise-client-urls", f"http://127.0.0.1:{port}"], str(port))

    def test_data_directory_of_another(self):
        first = self.cluster(1)
        node = first.nodes[0]
        self.refused([*node.argv()[:3], "--data-dir", node.data_dir, "--listen-client-urls",
                      f"http://127.0.0.1:{free_port()}", "--listen-peer-urls",
                      f"http://127.0.0.1:{free_port()}", *node.cluster_flags,
                      "--initial-advertise-peer-urls", node.peer_url], node.data_dir)
        node.ctl("put", "/kept", "1")
        node.stop()
        other = self.cluster(1, name="other").nodes[0]
        other.stop()
        before = self.shell(f"cd {node.data_dir} && find . -type f | sort | xargs md5sum").stdout
        argv = other.argv()
        argv[argv.index("--data-dir") + 1] = node.data_dir
        self.refused(argv, node.data_dir)
        self.assertEqual(
            self.shell(f"cd {node.data_dir} && find . -type f | sort | xargs md5sum").stdout, before)
        node.start()
        first.wait_healthy()
        self.assertEqual(node.ctl("get", "/kept").stdout, "/kept\n1\n")

    def test_quorumfs_arguments(self):
        point = os.path.join(self.folder, "mnt")
        source = f"127.0.0.1:{free_port()}:/"
        self.refused([QUORUMFS], code=2)
        self.refused([QUORUMFS, source, point], point)
        os.mkdir(point)
        self.refused([QUORUMFS, source, point, "-o", "timeout=1"], source.split(":/")[0])
        self.refused([QUORUMFS, source, point, "-o", "nonsense=1"], "nonsense", code=2)
        file = os.path.join(self.folder, "file")
        with open(file, "w", encoding="ascii") as made:
            made.write("x")
        self.refused([QUORUMFS, source, file], file)

    def test_mount_point_busy(self):
        servers = self.cluster(1)
        mount = self.mount(servers.source())
        self.refused([QUORUMFS, servers.source(), mount.point], mount.point)
        self.shell(f"echo 1 > {mount.path('f')}")

    def test_garbage_on_the_ports(self):
        servers = self.cluster(3)
        node = servers.nodes[0]
        chance = random.Random(7)
        for port in (int(node.client_url.rsplit(":", 1)[1]), int(node.peer_url.rsplit(":", 1)[1])):
            for i in range(scaled(200, 50)):
                with socket.create_connection(("127.0.0.1", port)) as connection:
                    head = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" if i % 2 else b""
                    try:
                        connection.sendall(head + chance.randbytes(chance.randint(1, 2000)))
                        connection.shutdown(socket.SHUT_WR)
                        connection.settimeout(30)
                        while connection.recv(65536):
                            pass
                    except OSError:
                        pass
        self.assertTrue(node.process.running())
        servers.wait_healthy()
        servers.ctl("put", "/after", "garbage")

    def test_oversized_request(self):
        servers = self.cluster(1)
        big = os.path.join(self.folder, "big")
        for size, word in ((1600 * 1024, "request is too large"), (3 << 20, "larger than max")):
            with open(big, "w", encoding="ascii") as file:
                file.write("x" * size)
            done = servers.ctl("put", "/big", input=open(big, encoding="ascii").read(), check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertTrue(word in done.stderr or "too large" in done.stderr
                            or "ResourceExhausted" in done.stderr, done.stderr)
        self.assertEqual(servers.ctl("get", "/big").stdout, "")
