"""Runs the integration tests: real daemons, real mounts, the distribution's etcd beside them.

    python3 tests/integration/run.py [--build build] [--results FILE] [--folder DIR] [NAME...]

NAME is a file (test_mount), or test_mount.ClassName.test_name. Each test prints one PASS, FAIL or SKIP
line, which is appended to FILE as well.
"""
import argparse
import os
import sys
import time
import unittest


class LineResult(unittest.TestResult):
    """One line a test; a failure's story before it."""

    def __init__(self, label, results_path):
        super().__init__()
        self.label = label
        self.results_path = results_path
        self.counts = {"PASS": 0, "FAIL": 0, "SKIP": 0}
        self.started = 0.0

    def line(self, word, test, reason=""):
        self.counts[word] += 1
        name = test.id() if hasattr(test, "id") else str(test)
        text = f"{word} {self.label}:{name}" + (f" ({reason})" if reason else "")
        print(f"{text} [{time.monotonic() - self.started:.1f} s]", flush=True)
        if self.results_path:
            with open(self.results_path, "a", encoding="utf-8") as results:
                print(text, file=results)

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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build")
    parser.add_argument("--results")
    parser.add_argument("--folder", default=os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:0] = [here, os.path.abspath(args.folder)]
    os.environ["QUORUMFS_BUILD"] = os.path.abspath(args.build)
    loader = unittest.TestLoader()
    suite = loader.loadTestsFromNames(args.names) if args.names else loader.discover(
        args.folder, top_level_dir=args.folder)
    label = f"{os.path.basename(os.path.abspath(args.folder))}:{os.path.basename(args.build)}"
    result = LineResult(label, args.results)
    suite.run(result)
    print(f"{result.counts['PASS']} passed, {result.counts['FAIL']} failed, "
          f"{result.counts['SKIP']} skipped")
    return 1 if result.counts["FAIL"] or not result.counts["PASS"] else 0


if __name__ == "__main__":
    sys.exit(main())
