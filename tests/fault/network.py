"""Hosts that a test makes for itself: network namespaces on a bridge, and partitions between them.

The bridge lives in a namespace of its own, so nothing of the machine's network is touched. Names carry the test's
process id; everything goes with close().
"""
import os
import subprocess

from harness import Cluster, Node


def ip(*args):
    subprocess.run(["ip", *args], check=True, capture_output=True, text=True)


class Network:
    """`size` hosts 10.213.7.1, .2, ... and one for clients, 10.213.7.200."""

    made = 0

    def __init__(self, size):
        Network.made += 1
        self.tag = f"qf{os.getpid() % 100000}n{Network.made}"
        self.hosts = [f"{self.tag}h{i + 1}" for i in range(size)]
        self.client = f"{self.tag}c"
        self.bridge = f"{self.tag}b"
        self.blocked = set()
        ip("netns", "add", self.bridge)
        ip("-n", self.bridge, "link", "add", "br0", "type", "bridge")
        ip("-n", self.bridge, "link", "set", "br0", "up")
        for i, host in enumerate(self.hosts):
            self.join(host, i + 1)
        self.join(self.client, 200)

    def join(self, host, number):
        ip("netns", "add", host)
        port = f"v{number}"
        ip("-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns",
           self.bridge)
        ip("-n", host, "addr", "add", f"10.213.7.{number}/24", "dev", "eth0")
        ip("-n", host, "link", "set", "eth0", "up")
        ip("-n", host, "link", "set", "lo", "up")
        ip("-n", self.bridge, "link", "set", port, "master", "br0")
        ip("-n", self.bridge, "link", "set", port, "up")

    def nft(self, host, text):
        subprocess.run(["ip", "netns", "exec", host, "nft", "-f", "-"], input=text, text=True,
                       check=True, capture_output=True)

    def block(self, host, other):
        """What `other` sends no longer arrives at `host` (one way); hosts are numbers from 0."""
        self.blocked.add((host, other))
        self.apply(host)

    def apply(self, host):
        drops = "".join(f"ip saddr 10.213.7.{o + 1} drop\n" for h, o in self.blocked if h == host)
        self.nft(self.hosts[host], "table ip faults\ndelete table ip faults\ntable ip faults {\n"
                 "chain input { type filter hook input priority 0;\n" + drops + "}\n}\n")

    def partition(self, one, others):
        """Splits two groups from each other, both ways."""
        for a in one:
            for b in others:
                self.block(a, b)
                self.block(b, a)

    def lose_half(self):
        """Every second packet between members is lost, at random; clients are not hit."""
        members = ", ".join(f"10.213.7.{i + 1}" for i in range(len(self.hosts)))
        for host in self.hosts:
            self.nft(host, "table ip faults\ndelete table ip faults\ntable ip faults {\n"
                     "chain input { type filter hook input priority 0;\n"
                     f"ip saddr {{ {members} }} numgen random mod 2 0 drop\n}}\n}}\n")
        self.blocked.update((i, i) for i in range(len(self.hosts)))  # heal() puts these in order too

    def heal(self):
        touched = {host for host, _ in self.blocked}
        self.blocked.clear()
        for host in touched:
            self.apply(host)

    def close(self):
        for name in self.hosts + [self.client, self.bridge]:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


class HostNode(Node):
    """A member on a host of its own."""

    def __init__(self, network, number, folder, program, flags):
        super().__init__(folder, f"m{number + 1}", 2379, 2380, program, flags)
        self.network, self.number = network, number
        address = f"10.213.7.{number + 1}"
        self.client_url, self.peer_url = f"http://{address}:2379", f"http://{address}:2380"
        self.endpoint = f"{address}:2379"

    def argv(self):
        return ["ip", "netns", "exec", self.network.hosts[self.number], *super().argv()]

    def ctl(self, *args, check=True, input=None, timeout=60, **_):
        done = subprocess.run(["ip", "netns", "exec", self.network.client, "etcdctl", "--endpoints",
                               self.endpoint, *args], capture_output=True, text=True, input=input,
                              timeout=timeout, env=dict(os.environ, ETCDCTL_API="3"), check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"{args}: {done.stdout}{done.stderr}")
        return done


class HostCluster(Cluster):
    """Members on the hosts of a Network."""

    def __init__(self, network, folder, size, program, flags=()):
        super().__init__(folder, 0, program, flags)
        self.network = network
        self.nodes = [HostNode(network, i, folder, program, flags) for i in range(size)]
        initial = ",".join(f"{n.name}={n.peer_url}" for n in self.nodes)
        for node in self.nodes:
            node.cluster_flags = ["--initial-cluster", initial, "--initial-cluster-token", "hosts"]
