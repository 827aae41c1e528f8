"""Prints one PASS, FAIL or SKIP line for each test of a build folder's last `meson test` run."""
import json
import sys

folder = sys.argv[1]
words = {"OK": "PASS", "SKIP": "SKIP", "EXPECTEDFAIL": "PASS"}
with open(f"{folder}/meson-logs/testlog.json", encoding="utf-8") as log:
    for line in log:
        test = json.loads(line)
        name = test["name"].split(" / ")[-1].strip()
        print(words.get(test["result"], "FAIL"), f"unit:{folder}:{name}")
