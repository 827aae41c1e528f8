"""Runs the integration tests: real daemons, real mounts, the distribution's etcd beside them.

    python3 tests/integration/run.py [--build build] [--results FILE] [--folder DIR] [--jobs N] [--durations N] [NAME...]

NAME is a file (test_mount), or test_mount.ClassName.test_name. Each test prints one PASS, FAIL or SKIP
line, which is appended to FILE as well. Tests mostly wait, so N of them run at a time (default: JOBS, or 4),
each in a process of its own, whose output is printed as one block when it ends. Those that are marked with
harness.exclusive() run alone, after the others; harness.takes_long marks those that begin.
"""
import argparse
import os
import re
import sys
import tempfile
import time
import traceback
import unittest

WORDS = ("PASS", "FAIL", "SKIP")


class LineResult(unittest.TestResult):
    """One line a test; a failure's story before it."""

    def __init__(self, label):
        super().__init__()
        self.label = label
        self.started = 0.0

    def line(self, word, test, reason=""):
        name = test.id() if hasattr(test, "id") else str(test)
        text = f"{word} {self.label}:{name}" + (f" ({reason})" if reason else "")
        print(f"{text} [{time.monotonic() - self.started:.1f} s]", flush=True)

    def startTest(self, test):
        super().startTest(test)
        self.started = time.monotonic()

    def addSuccess(self, test):
        self.line("PASS", test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        print(self.failures[-1][1], flush=True)
        self.line("FAIL", test)

    def addError(self, test, err):
        super().addError(test, err)
        print(self.errors[-1][1], flush=True)
        self.line("FAIL", test)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            print((self.failures + self.errors)[-1][1], flush=True)
            self.line("FAIL", subtest)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.line("SKIP", test, reason)


class Runner:
    """Starts each test as a process; collects blocks of output and counts their lines."""

    def __init__(self, label, results_path, jobs):
        self.label, self.results_path, self.jobs = label, results_path, jobs
        self.counts = dict.fromkeys(WORDS, 0)
        self.running = {}  # pid -> (test, output file, when it was started)
        self.durations = []

    def run(self, tests):
        """Those that take long come first, those that must be alone last."""
        tests = sorted(tests, key=lambda test: not marked(test, "takes_long"))
        for alone in (False, True):
            for test in tests:
                if marked(test, "exclusive_because") == alone:
                    while len(self.running) >= (1 if alone else self.jobs):
                        self.collect_one()
                    self.start(test)
            while self.running:
                self.collect_one()

    def start(self, test):
        output = tempfile.TemporaryFile()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            run_and_exit(test, self.label, output)
        self.running[pid] = (test, output, time.monotonic())

    def collect_one(self):
        pid, status = os.wait()
        test, output, started = self.running.pop(pid)
        self.durations.append((time.monotonic() - started, test.id()))
        with output:
            output.seek(0)
            text = output.read().decode("utf-8", errors="replace")
        lines = re.findall(rf"^((?:{'|'.join(WORDS)}) {re.escape(self.label)}:.*)$", text, re.MULTILINE)
        if status != 0 or not lines:
            lines.append(f"FAIL {self.label}:{test.id()} (its process ended with status {status})")
            text += lines[-1] + "\n"
        sys.stdout.write(text)
        sys.stdout.flush()
        for line in lines:
            self.counts[line.split(" ", 1)[0]] += 1
        if self.results_path:
            with open(self.results_path, "a", encoding="utf-8") as results:
                results.writelines(re.sub(r" \[[0-9.]+ s\]$", "", line) + "\n" for line in lines)


def run_and_exit(test, label, output):
    """In the child: what it and its programs print goes to `output`."""
    status = 1
    try:
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
        unittest.TestSuite([test]).run(LineResult(label))
        status = 0
    except BaseException:  # noqa: BLE001 -- the parent makes a FAIL line of the status
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def marked(test, mark):
    """By a decorator of harness.py, on the test or on its class."""
    method = getattr(test, getattr(test, "_testMethodName", ""), None)
    return bool(getattr(test, mark, None) or getattr(method, mark, None))


def flat(suite):
    if isinstance(suite, unittest.TestSuite):
        return [test for part in suite for test in flat(part)]
    return [suite]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build")
    parser.add_argument("--results")
    parser.add_argument("--folder", default=os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--jobs", type=int, default=int(os.environ.get("JOBS", 4)))
    parser.add_argument("--durations", type=int, default=0, help="also list the N longest tests")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:0] = [here, os.path.abspath(args.folder)]
    os.environ["QUORUMFS_BUILD"] = os.path.abspath(args.build)
    loader = unittest.TestLoader()
    suite = loader.loadTestsFromNames(args.names) if args.names else loader.discover(
        args.folder, top_level_dir=args.folder)
    label = f"{os.path.basename(os.path.abspath(args.folder))}:{os.path.basename(args.build)}"
    runner = Runner(label, args.results, max(1, args.jobs))
    begun = time.monotonic()
    runner.run(flat(suite))
    for seconds, name in sorted(runner.durations, reverse=True)[:args.durations]:
        print(f"{seconds:7.1f} s  {name}")
    print(", ".join(f"{runner.counts[word]} {said}" for word, said in
                    zip(WORDS, ("passed", "failed", "skipped"))) + f" in {time.monotonic() - begun:.0f} s")
    return 1 if runner.counts["FAIL"] or not runner.counts["PASS"] else 0


if __name__ == "__main__":
    sys.exit(main())
