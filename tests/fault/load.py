"""What the fault tests share: the load that is checked afterwards, and whether a cluster takes writes."""
import os
import re
import subprocess

from harness import BUILD, wait_for


class Beside:
    """A program of this folder that runs beside the faults until its input ends, and then judges."""

    made = 0

    def __init__(self, program, cluster, folder, *args, prefix=(), environment=()):
        Beside.made += 1
        self.log_path = os.path.join(folder, f"{program}{Beside.made}.log")
        urls = ",".join(n.client_url for n in cluster.nodes)
        argv = [*prefix, os.path.join(BUILD, "tests", "fault", program), urls, *map(str, args)]
        with open(self.log_path, "wb") as log:
            self.popen = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                                          env=dict(os.environ, **dict(environment)))

    def finish(self, test):
        """Fails the test if something was wrong; returns the counts that the program printed."""
        self.popen.stdin.close()
        code = self.popen.wait(600)
        with open(self.log_path, encoding="utf-8") as log:
            text = log.read()
        test.assertEqual(code, 0, text[-8000:])
        counts = re.search(r"^\w+=\d+ .*$", text, re.MULTILINE)
        return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", counts.group(0))}

    def kill(self):
        self.popen.kill()
        self.popen.wait()
        if not self.popen.stdin.closed:
            self.popen.stdin.close()


class Load(Beside):
    """The recorder of histories that must be linearizable (history.c)."""

    def __init__(self, cluster, folder, clients=8, keys=4, prefix=(), named=False, everywhere=False):
        flags = {"HISTORY_NAMED": named, "HISTORY_EVERYWHERE": everywhere}
        super().__init__("history", cluster, folder, clients, keys, prefix=prefix,
                         environment={name: "1" for name, on in flags.items() if on})


class Witness(Beside):
    """Watches and leases beside the faults (witness.h). Nobody may compact, and all members must live in the end."""

    def __init__(self, cluster, folder, prefix=()):
        super().__init__("witness", cluster, folder, prefix=prefix)

    def finish(self, test):
        counts = super().finish(test)
        print(f"    witness: {counts}", flush=True)
        for name in ("events", "moves", "puts", "renewals", "expired"):
            test.assertGreater(counts[name], 0, f"no {name}: the test proves nothing")
        return counts


def writes_work(cluster, nodes=None):
    nodes = nodes or cluster.nodes
    wait_for(lambda: any(n.ctl("--command-timeout=2s", "put", "/works", "1",
                               check=False).returncode == 0 for n in nodes), "a write")
