"""Disks that lose at a kill what was not synced: lossy.so and lossy_undo (lossy.h) around members and programs."""
import os
import re
import shutil
import struct
import subprocess
import unittest

from harness import BUILD, QUORUMD, SANITIZED, Cluster, Node

LIBRARY = os.path.join(BUILD, "tests", "fault", "lossy.so")
UNDO = os.path.join(BUILD, "tests", "fault", "lossy_undo")

needs_preload = unittest.skipIf(SANITIZED, "the sanitizers' library must be the first: run it on the plain build")


class Disk:
    """A folder whose unsynced part can be lost. The path must not have been made by the program itself."""

    def __init__(self, folder, name):
        self.path = os.path.join(folder, name + ".disk")
        self.journal = os.path.join(folder, name + ".journal")
        self.countdown = os.path.join(folder, name + ".countdown")
        os.makedirs(self.path)
        with open(self.countdown, "wb") as file:
            file.write(bytes(16))
        self.renew()

    def renew(self):
        shutil.rmtree(self.journal, ignore_errors=True)
        os.makedirs(os.path.join(self.journal, "inodes"))

    def environment(self):
        return {"LD_PRELOAD": LIBRARY, "LOSSY_DIR": self.path, "LOSSY_JOURNAL": self.journal,
                "LOSSY_COUNTDOWN": self.countdown}

    def die_in(self, places, counted=0):
        """Who works here is killed at so many places (before or after a call that changes a file) from now. Counted are,
        as in lossy.h: 0: all; 1: no writes; 2: no writes and no syncs."""
        with open(self.countdown, "r+b", buffering=0) as file:
            file.write(struct.pack("=qq", places, counted))

    def lose(self, seed=None):
        """After the kill: loses all that was not synced, or, with a seed, a random part of it. Says how much."""
        argv = [UNDO, self.journal] + ([str(seed)] if seed else [])
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise AssertionError(f"lossy_undo: {done.stdout}{done.stderr}")
        self.renew()
        return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", done.stdout)}


class LossyNode(Node):
    """A member on such a disk."""

    def __init__(self, like):
        super().__init__(like.folder, like.name, 0, 0, like.program, like.flags)
        self.client_url, self.peer_url, self.endpoint = like.client_url, like.peer_url, like.endpoint
        self.cluster_flags = like.cluster_flags
        self.disk = Disk(like.folder, like.name)
        self.data_dir = os.path.join(self.disk.path, "data")
        self.environment = self.disk.environment()

    def lose_power(self, seed=None):
        self.kill()
        return self.disk.lose(seed)


class LossyCluster(Cluster):
    def __init__(self, folder, size, program=QUORUMD, flags=()):
        super().__init__(folder, size, program, flags)
        self.nodes = [LossyNode(node) for node in self.nodes]
