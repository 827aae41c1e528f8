"""What the fault tests share: the load that is checked afterwards, and whether a cluster takes writes."""
import os
import re
import subprocess

from harness import BUILD, wait_for


class Load:
    """The history recorder, running beside the faults."""

    made = 0

    def __init__(self, cluster, folder, clients=8, keys=4, prefix=(), named=False):
        Load.made += 1
        self.log_path = os.path.join(folder, f"history{Load.made}.log")
        urls = ",".join(n.client_url for n in cluster.nodes)
        with open(self.log_path, "wb") as log:
            self.popen = subprocess.Popen([*prefix, os.path.join(BUILD, "tests", "fault", "history"),
                                           urls, str(clients), str(keys)], stdin=subprocess.PIPE,
                                          stdout=log, stderr=subprocess.STDOUT,
                                          env=dict(os.environ, **({"HISTORY_NAMED": "1"} if named else {})))

    def finish(self, test):
        self.popen.stdin.close()
        code = self.popen.wait(600)
        with open(self.log_path, encoding="utf-8") as log:
            text = log.read()
        test.assertEqual(code, 0, text[-8000:])
        return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", text.split("\n")[0])}

    def kill(self):
        self.popen.kill()
        self.popen.wait()


def writes_work(cluster, nodes=None):
    nodes = nodes or cluster.nodes
    wait_for(lambda: any(n.ctl("--command-timeout=5s", "put", "/works", "1",
                               check=False).returncode == 0 for n in nodes), "a write")
