"""What the other tests rely on."""
import os
import socket
import time

import harness
from harness import PATIENCE_S, Cluster, Ended, TestCase, free_port, wait_for


class Harness(TestCase):
    def test_a_dead_member_is_not_waited_for(self):
        """wait_healthy() once took the end of a member for one more "not yet", and waited its whole limit."""
        cluster = Cluster(os.path.join(self.folder, "cluster"), 1, flags=["--no-such-flag"])
        self.addCleanup(cluster.stop)
        begun = time.monotonic()
        with self.assertRaisesRegex(Ended, "--no-such-flag"):
            cluster.start()
        self.assertLess(time.monotonic() - begun, PATIENCE_S / 2)

    def test_other_exceptions_are_waited_through(self):
        answers = [ValueError("not yet"), OSError("not yet"), None, "done"]

        def ask():
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        self.assertEqual(wait_for(ask, "the last answer"), "done")

    def test_a_port_belongs_to_one_process(self):
        """Another test's process can't be given the port of a member that is just being restarted."""
        port = free_port()
        with socket.socket(socket.AF_UNIX) as other:
            with self.assertRaises(OSError):
                other.bind(f"\0quorumfs-test-port-{port}")
        ports = {free_port() for _ in range(50)}
        self.assertEqual(len(ports), 50)
        self.assertNotIn(port, ports)
        self.assertIn(port, harness._PORTS_GIVEN)
