"""What the integration and fault tests share: daemons, clusters, mounts, waiting.

Every process is started and ended by its own process object; tests wait for conditions with a generous
limit, never for a time. A failing test finds the logs of its processes in its output.
"""
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

BUILD = os.environ.get("QUORUMFS_BUILD", os.path.abspath("build"))
QUORUMD = os.path.join(BUILD, "daemon", "quorumd")
QUORUMFS = os.path.join(BUILD, "fuse", "quorumfs")
SANITIZED = "asan" in os.path.basename(BUILD)
PATIENCE_S = 60.0  # for conditions that a healthy machine reaches in a second


def scaled(count, sanitized_count):
    """The size of a load: smaller under the sanitizers, which are several times slower."""
    return sanitized_count if SANITIZED else count


def takes_long(thing):
    """Marks a test that run.py starts before the others, so that not all wait for it in the end."""
    thing.takes_long = True
    return thing


class Ended(AssertionError):
    """A process that a test waits for has ended: no use in waiting any longer."""


def wait_for(condition, what, limit_s=PATIENCE_S):
    """Waits until condition() is true and returns its value; an exception in it counts as false, except Ended."""
    end = time.monotonic() + limit_s
    last = None
    while time.monotonic() < end:
        try:
            value = condition()
            if value:
                return value
            last = value
        except Ended:
            raise
        except Exception as error:  # noqa: BLE001 -- reported below if it never gets better
            last = error
        time.sleep(0.02)
    raise AssertionError(f"waited {limit_s:.0f} s for {what}; last: {last!r}")


_PORTS_GIVEN = {}


def free_port():
    """A port nobody listens on, from below the ephemeral range so that no client takes it meanwhile. It is this
    process's as long as it lives, also while nobody listens on it: a socket of that name says so to the tests that
    run beside this one."""
    while True:
        port = random.randint(12000, 32000)
        if port in _PORTS_GIVEN:
            continue
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0quorumfs-test-port-{port}")
            with contextlib.closing(socket.socket()) as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _PORTS_GIVEN[port] = claim
        return port


def exclusive(because):
    """Marks a test or a class of them that can't run beside others (run.py)."""
    def mark(thing):
        thing.exclusive_because = because
        return thing
    return mark


class Process:
    """A background process with its output in a file."""

    def __init__(self, argv, log_path, **popen):
        self.argv = argv
        self.log_path = log_path
        self.log_file = open(log_path, "ab")
        self.popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.log_file,
                                      stderr=subprocess.STDOUT, **popen)
        self.pid = self.popen.pid

    def running(self):
        return self.popen.poll() is None

    def signal(self, number):
        if self.running():
            self.popen.send_signal(number)

    def wait(self, limit_s=PATIENCE_S):
        return self.popen.wait(limit_s)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.popen.wait(PATIENCE_S)
        self.log_file.close()

    def stop(self):
        """SIGTERM; returns the exit code."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            code = self.popen.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.argv[0]} did not end on SIGTERM\n{self.log_tail()}") from None
        self.log_file.close()
        return code

    def log_text(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def log_tail(self, lines=30):
        return "\n".join(self.log_text().splitlines()[-lines:])


class Node:
    """One member: quorumd, or the distribution's etcd with the same flags."""

    def __init__(self, folder, name, client_port, peer_port, program, flags=()):
        self.folder, self.name, self.program = folder, name, program
        self.client_url = f"http://127.0.0.1:{client_port}"
        self.peer_url = f"http://127.0.0.1:{peer_port}"
        self.endpoint = f"127.0.0.1:{client_port}"
        self.data_dir = os.path.join(folder, name)
        self.flags = list(flags)
        self.cluster_flags = []
        self.environment = {}
        self.process = None

    def argv(self):
        return [self.program, "--name", self.name, "--data-dir", self.data_dir,
                "--listen-client-urls", self.client_url, "--advertise-client-urls", self.client_url,
                "--listen-peer-urls", self.peer_url,
                "--initial-advertise-peer-urls", self.peer_url] + self.cluster_flags + self.flags

    def start(self):
        environment = dict(os.environ, ETCD_UNSUPPORTED_ARCH="", **self.environment)
        self.process = Process(self.argv(), os.path.join(self.folder, self.name + ".log"),
                               env=environment)
        return self

    def kill(self):
        if self.process:
            self.process.kill()
            self.process = None

    def stop(self):
        code = self.process.stop() if self.process else 0
        self.process = None
        return code

    def ctl(self, *args, **options):
        return etcdctl([self.endpoint], *args, **options)

    def status(self):
        return json.loads(self.ctl("endpoint", "status", "-w", "json").stdout)[0]["Status"]

    def healthy(self):
        return self.ctl("endpoint", "health", check=False).returncode == 0


def etcdctl(endpoints, *args, check=True, text=True, input=None, timeout=PATIENCE_S):
    environment = dict(os.environ, ETCDCTL_API="3")
    done = subprocess.run(["etcdctl", "--endpoints", ",".join(endpoints), *args], text=text,
                          input=input, capture_output=True, timeout=timeout, env=environment,
                          check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"etcdctl {' '.join(map(str, args))}: exit {done.returncode}\n"
                             f"{done.stdout}\n{done.stderr}")
    return done


class Cluster:
    """`size` members on loopback ports."""

    def __init__(self, folder, size, program=QUORUMD, flags=()):
        os.makedirs(folder, exist_ok=True)
        self.nodes = [Node(folder, f"m{i + 1}", free_port(), free_port(), program, flags)
                      for i in range(size)]
        initial = ",".join(f"{n.name}={n.peer_url}" for n in self.nodes)
        for node in self.nodes:
            node.cluster_flags = ["--initial-cluster", initial, "--initial-cluster-state", "new",
                                  "--initial-cluster-token", "test"]

    @property
    def endpoints(self):
        return [n.endpoint for n in self.nodes]

    def source(self, path="/", first=0):
        """A mount's SOURCE, with the member `first` first."""
        order = self.nodes[first:] + self.nodes[:first]
        return ",".join(n.endpoint for n in order) + ":" + path

    def start(self):
        for node in self.nodes:
            node.start()
        self.wait_healthy()
        return self

    def wait_healthy(self, nodes=None):
        for node in nodes or self.nodes:
            wait_for(lambda n=node: self.must_run(n) and n.healthy(), f"{node.name} to be healthy")

    @staticmethod
    def must_run(node):
        if not node.process:
            raise Ended(f"{node.name} was not started")
        if not node.process.running():
            raise Ended(f"{node.name} ended by itself:\n{node.process.log_tail()}")
        return True

    def leader(self):
        def find():
            for node in self.nodes:
                if node.process and node.process.running():
                    done = node.ctl("endpoint", "status", "-w", "json", check=False)
                    if done.returncode == 0 and done.stdout.strip():
                        status = json.loads(done.stdout)[0]["Status"]
                        if status.get("leader") == status["header"]["member_id"]:
                            return node
            return None
        return wait_for(find, "a leader")

    def ctl(self, *args, **options):
        return etcdctl(self.endpoints, *args, **options)

    def hashes(self):
        return [json.loads(n.ctl("endpoint", "hashkv", "-w", "json").stdout)[0]["HashKV"]["hash"]
                for n in self.nodes]

    def wait_equal(self):
        """Waits until all members hash to the same value at the same revision."""
        def equal():
            revision = max(n.status()["header"]["revision"] for n in self.nodes)
            if any(n.status()["header"]["revision"] != revision for n in self.nodes):
                return False
            return len(set(self.hashes())) == 1
        wait_for(equal, "equal hashes on all members")

    def stop(self):
        for node in self.nodes:
            node.kill()


class Mount:
    """A quorumfs in the foreground."""

    def __init__(self, source, point, folder, options=()):
        os.makedirs(point, exist_ok=True)
        self.point = point
        self.log_path = os.path.join(folder, os.path.basename(point) + ".mount.log")
        argv = [QUORUMFS, source, point, "-f"]
        if options:
            argv += ["-o", ",".join(options)]
        self.process = Process(argv, self.log_path)
        try:
            wait_for(self.serves, f"the mount {point}")
        except AssertionError as error:
            text = self.process.log_tail()
            self.stop(check=False)
            raise AssertionError(f"{error}\n{text}") from None

    def serves(self):
        if not self.process.running():
            raise Ended(f"quorumfs ended: {self.process.log_tail()}")
        return os.path.ismount(self.point)

    def path(self, *parts):
        return os.path.join(self.point, *parts)

    def stop(self, check=True):
        def unmounted():
            """While it repeats remote changes the mount itself is busy for moments (README)."""
            return not self.process.running() or not os.path.ismount(self.point) or subprocess.run(
                ["fusermount3", "-u", self.point], capture_output=True, check=False).returncode == 0
        try:
            wait_for(unmounted, f"{self.point} to be unmounted", 20)
            code = self.process.wait(20)
        except (AssertionError, subprocess.TimeoutExpired):
            subprocess.run(["fusermount3", "-u", "-z", self.point], capture_output=True, check=False)
            self.process.kill()
            code = "none: it had to be killed"
        if check and code != 0:
            raise AssertionError(f"quorumfs exit {code}\n{self.process.log_tail(60)}")
        return code


class TestCase(unittest.TestCase):
    """Gives each test a folder and ends what it started, last first."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="quorumfs-test-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.logs = []
        self.addCleanup(self.show_logs)

    def show_logs(self):
        result = self._outcome.result if getattr(self, "_outcome", None) else None
        failed = result and any(test is self for test, _ in result.failures + result.errors)
        if not failed:
            return
        for folder, _, names in os.walk(self.folder):
            if any(os.path.ismount(os.path.join(self.folder, part)) for part in [folder]):
                continue
            for name in sorted(names):
                if name.endswith(".log"):
                    with open(os.path.join(folder, name), encoding="utf-8",
                              errors="replace") as log:
                        print(f"--- {name}\n" + "".join(log.readlines()[-25:]), flush=True)

    def cluster(self, size, flags=(), name="cluster"):
        made = Cluster(os.path.join(self.folder, name), size, flags=flags)
        self.addCleanup(made.stop)
        return made.start()

    def etcd(self, flags=()):
        if not shutil.which("etcd"):
            self.skipTest("no etcd on this machine: install the package etcd-server")
        made = Cluster(os.path.join(self.folder, "etcd"), 1, program="etcd", flags=flags)
        self.addCleanup(made.stop)
        return made.start()

    def mount(self, source, name="mnt", options=()):
        if not os.path.exists("/dev/fuse"):
            self.skipTest("no /dev/fuse: load the kernel's module fuse")
        made = Mount(source, os.path.join(self.folder, name), self.folder, options)
        self.addCleanup(made.stop, check=SANITIZED)
        return made

    def read(self, path):
        with open(path, "rb") as file:
            return file.read()

    def shell(self, script, **options):
        """Runs a script with bash; returns the finished process; fails the test if it fails."""
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True,
                              timeout=PATIENCE_S * 5, check=False, **options)
        self.assertEqual(done.returncode, 0, f"{script}\n{done.stdout}\n{done.stderr}")
        return done
