"""A member whose data directory was wiped or damaged comes back by itself, as a new member, and ends equal to the others."""
import json
import os
import random
import re
import shutil
import subprocess
import time

from harness import QUORUMD, Cluster, Node, Process, TestCase, free_port, scaled, wait_for
from test_faults import Load

PLACES = int(os.environ.get("HEAL_PLACES", scaled(12, 3)))
SEED = int(os.environ.get("HEAL_SEED", 1))


def members(node):
    """The membership as `node` answers it: peer URL -> (id, learner, published)."""
    listed = json.loads(node.ctl("--command-timeout=5s", "member", "list", "-w", "json").stdout)
    return {m["peerURLs"][0]: (m["ID"], m.get("isLearner", False), bool(m.get("clientURLs")))
            for m in listed["members"]}


def used_end(path, step=512):
    """Where the last bytes of a file stand that aren't zero, rounded up."""
    with open(path, "rb") as file:
        end = used = 0
        while chunk := file.read(1 << 20):
            stripped = chunk.rstrip(b"\0")
            used = end + len(stripped) if stripped else used
            end += len(chunk)
    return min(end, -(-used // step) * step)


class HealCase(TestCase):
    def whole(self, cluster, limit_s=120):
        """Waits until all are healthy voters, of equal contents, and nothing of a rejoin is left."""
        def three_voters():
            for node in cluster.nodes:
                Cluster.must_run(node)
            found = members(cluster.leader())
            return set(found) == {n.peer_url for n in cluster.nodes} and all(
                published and not learner for _, learner, published in found.values())
        wait_for(three_voters, "every member to be a voter again", limit_s)
        cluster.wait_healthy()
        wait_for(lambda: self.equal_now(cluster), "equal hashes on all members")
        for node in cluster.nodes:
            wait_for(lambda n=node: not os.path.exists(os.path.join(n.data_dir, "rejoin")),
                     f"the end of {node.name}'s rejoin")
            self.assertFalse(os.path.exists(os.path.join(node.data_dir, "member.damaged")))
        self.assertEqual(cluster.leader().ctl("alarm", "list").stdout, "")

    @staticmethod
    def equal_now(cluster):
        """At one revision, so that it can be told under load too."""
        revision = max(n.status()["header"]["revision"] for n in cluster.nodes)
        hashes = set()
        for node in cluster.nodes:
            node.ctl("get", "/any")  # has applied what had happened by now
            answer = node.ctl("endpoint", "hashkv", f"--rev={revision}", "-w", "json").stdout
            hashes.add(json.loads(answer)[0]["HashKV"]["hash"])
        return len(hashes) == 1

    def load(self, cluster, **options):
        made = Load(cluster, self.folder, **options)
        self.addCleanup(made.kill)
        return made

    def ids(self, cluster):
        found = members(cluster.leader())
        return [found[n.peer_url][0] for n in cluster.nodes]

    def ids_of(self, cluster, node):
        other = next(n for n in cluster.nodes if n is not node)
        return members(other)[node.peer_url][0]


class Heal(HealCase):
    def written(self, node, count=50):
        for i in range(count):
            node.ctl("put", f"/k{i}", f"v{i}")

    @staticmethod
    def wipe(node):
        shutil.rmtree(node.data_dir)

    def wiped(self, choose):
        cluster = self.cluster(3)
        self.whole(cluster)
        before = self.ids(cluster)
        load = self.load(cluster, clients=3)
        victim = choose(cluster)
        victim.kill()
        self.wipe(victim)
        victim.start()
        self.whole(cluster)
        load.finish(self)
        self.whole(cluster)
        after = self.ids(cluster)
        for node, old, new in zip(cluster.nodes, before, after):
            self.assertEqual(old != new, node is victim, node.name)
        self.assertIn("is a full member again", victim.process.log_text())

    def test_wiped_follower(self):
        self.wiped(lambda cluster: next(n for n in cluster.nodes if n is not cluster.leader()))

    def test_wiped_leader(self):
        self.wiped(lambda cluster: cluster.leader())

    def test_wiped_while_no_quorum(self):
        """Two of three are away, one of them for good data: nothing is decided on what the wiped one forgot."""
        cluster = self.cluster(3)
        self.whole(cluster)
        a, b, c = cluster.nodes
        self.written(a)
        before = self.ids(cluster)
        for node in (b, c):
            node.kill()
        self.wipe(b)
        b.start()
        wait_for(lambda: "coming back as a new member" in b.process.log_text(), "b to know that it was wiped")
        put = a.ctl("--command-timeout=2s", "put", "/x", "1", check=False)
        self.assertNotEqual(put.returncode, 0, "a write without a quorum of members with their data")
        self.assertFalse(os.path.exists(os.path.join(b.data_dir, "member", "log")))
        c.start()
        self.whole(cluster)
        self.assertEqual(a.ctl("get", "/k7", "--print-value-only").stdout, "v7\n")
        self.assertNotEqual(self.ids(cluster)[1], before[1])

    def test_wiped_with_existing(self):
        cluster = self.cluster(3)
        self.written(cluster.nodes[0])
        victim = cluster.nodes[2]
        victim.kill()
        self.wipe(victim)
        victim.cluster_flags = [f if f != "new" else "existing" for f in victim.cluster_flags]
        victim.start()
        self.whole(cluster)

    def late(self, write):
        cluster = Cluster(os.path.join(self.folder, "late"), 3)
        self.addCleanup(cluster.stop)
        for node in cluster.nodes[:2]:
            node.start()
        cluster.wait_healthy(cluster.nodes[:2])
        if write:
            self.written(cluster.nodes[0])
        before = members(cluster.nodes[0])[cluster.nodes[2].peer_url]
        self.assertFalse(before[2])
        cluster.nodes[2].start()
        self.whole(cluster)
        self.assertEqual(members(cluster.nodes[0])[cluster.nodes[2].peer_url][0], before[0],
                         "a late first start needs no new id")

    def test_first_start_late(self):
        self.late(write=True)

    def test_first_start_alone_waits(self):
        """One of three can't know whether it was wiped: it waits, and says so to who asks."""
        cluster = Cluster(os.path.join(self.folder, "alone"), 3)
        self.addCleanup(cluster.stop)
        first = cluster.nodes[0].start()
        wait_for(lambda: "waiting for the others" in first.process.log_text(), "the log line")
        self.assertFalse(os.path.exists(os.path.join(first.data_dir, "member")))
        for node in cluster.nodes[1:]:
            node.start()
        self.whole(cluster)

    def test_first_start_all_at_once(self):
        for i in range(scaled(4, 2)):
            begun = time.monotonic()
            cluster = self.cluster(3 if i % 2 else 5, name=f"all{i}")
            self.whole(cluster)
            print(f"    {len(cluster.nodes)} members up and equal after "
                  f"{time.monotonic() - begun:.1f} s", flush=True)
            cluster.stop()

    def test_killed_while_rejoining(self):
        """At any moment: what is on disk says how to go on."""
        cluster = self.cluster(3)
        self.written(cluster.nodes[0])
        chance = random.Random(SEED)
        victim = cluster.nodes[1]
        for i in range(scaled(4, 2)):
            victim.kill()
            if i % 2:
                self.damage_log_head(victim)
            else:
                self.wipe(victim)
            for _ in range(scaled(6, 3)):
                victim.start()
                time.sleep(chance.uniform(0.005, 0.4))
                victim.kill()
            victim.start()
            self.whole(cluster)

    def test_two_wiped_of_five(self):
        """One learner at a time: the second one waits for the first one's promotion."""
        cluster = self.cluster(5)
        self.whole(cluster)  # who has not published itself yet would count as a first start
        load = self.load(cluster, clients=2)
        for victim in cluster.nodes[:2]:
            victim.kill()
            self.wipe(victim)
        for victim in cluster.nodes[:2]:
            victim.start()
        self.whole(cluster)
        load.finish(self)

    def added(self, cluster, name, learner=False):
        """One more member, added by hand."""
        node = Node(cluster.nodes[0].folder, name, free_port(), free_port(), QUORUMD)
        cluster.nodes[0].ctl("member", "add", name, f"--peer-urls={node.peer_url}",
                             *(["--learner"] if learner else []))
        initial = ",".join(f"{n.name}={n.peer_url}" for n in [*cluster.nodes, node])
        node.cluster_flags = ["--initial-cluster", initial, "--initial-cluster-state", "existing"]
        node.start()
        self.addCleanup(node.kill)
        wait_for(lambda: members(cluster.nodes[0])[node.peer_url][2], f"{name} to have started")
        return node

    def test_wiped_while_another_is_away(self):
        """Four of five voters are left, one of them away: the wiped one is promoted without waiting for that one."""
        cluster = self.cluster(5)
        self.whole(cluster)
        leader = cluster.leader()
        victim, away = [n for n in cluster.nodes if n is not leader][:2]
        before = self.ids_of(cluster, victim)
        away.kill()
        victim.kill()
        self.wipe(victim)
        victim.start()
        wait_for(lambda: "is a full member again" in victim.process.log_text(), "the promotion of the wiped member", 120)
        new, learner, _ = members(leader)[victim.peer_url]
        self.assertNotEqual(new, before)
        self.assertFalse(learner)
        away.start()
        self.whole(cluster)

    def test_damaged_learner(self):
        """It comes back as what it was."""
        cluster = self.cluster(3)
        learner = self.added(cluster, "learner", learner=True)
        old = members(cluster.nodes[0])[learner.peer_url][0]
        wait_for(lambda: os.path.exists(os.path.join(learner.data_dir, "members")), "its note")
        learner.kill()
        self.damage_log_head(learner)
        learner.start()
        def back():
            member, is_learner, published = members(cluster.nodes[0])[learner.peer_url]
            return member != old and is_learner and published
        wait_for(back, "the learner to be back")
        wait_for(lambda: "is a full member again" in learner.process.log_text(), "the end of it")
        self.assertTrue(members(cluster.nodes[0])[learner.peer_url][1])
        self.assertEqual(cluster.nodes[0].ctl("alarm", "list").stdout, "")

    def test_grown_cluster(self):
        """The first member's settings name nobody else; its note of the membership does."""
        cluster = self.cluster(1)
        first = cluster.nodes[0]
        for name in ("second", "third"):
            cluster.nodes.append(self.added(cluster, name))
            cluster.wait_healthy()
        self.written(first)
        old = self.ids_of(cluster, first)
        def noted():
            with open(os.path.join(first.data_dir, "members"), encoding="utf-8") as file:
                return cluster.nodes[2].peer_url in file.read()
        wait_for(noted, "the first member's note of the third")
        first.kill()
        self.damage_log_head(first)
        first.start()
        self.whole(cluster)
        self.assertNotEqual(self.ids_of(cluster, first), old)

    def test_two_daemons_with_one_address(self):
        """The second one can't bind the peer port, and the first one's membership stays."""
        cluster = self.cluster(3)
        before = self.ids(cluster)
        node = cluster.nodes[0]
        argv = node.argv()
        argv[argv.index("--data-dir") + 1] = os.path.join(self.folder, "copy")
        argv[argv.index("--listen-client-urls") + 1] = cluster.nodes[0].client_url
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(node.peer_url.rsplit(":", 1)[1], done.stderr)
        self.assertEqual(self.ids(cluster), before)

    def test_advertised_address_of_another(self):
        """It listens elsewhere, but says that it is the other: it must not throw that one out."""
        cluster = self.cluster(3)
        before = self.ids(cluster)
        argv = cluster.nodes[0].argv()
        for flag, value in (("--data-dir", os.path.join(self.folder, "copy")),
                            ("--listen-peer-urls", f"http://127.0.0.1:{free_port()}"),
                            ("--listen-client-urls", f"http://127.0.0.1:{free_port()}")):
            argv[argv.index(flag) + 1] = value
        other = Process(argv, os.path.join(self.folder, "copy.log"))
        self.addCleanup(other.kill)
        wait_for(lambda: "two daemons with one address" in other.log_text(), "the warning")
        self.assertEqual(self.ids(cluster), before)
        self.whole(cluster)

    def test_alarm_names_the_damaged(self):
        """CORRUPT is on for the old id until the new one is a voter; the others serve."""
        cluster = self.cluster(5)
        victim, other, away = cluster.nodes[:3]
        self.written(other, 5)
        old = self.ids(cluster)[0]
        away.kill()  # a voter that is away puts every promotion off
        victim.kill()
        self.damage_log_head(victim)
        victim.start()
        wait_for(lambda: "back as member" in victim.process.log_text(), "the new member")
        self.assertIn("damaged data", victim.process.log_text())
        self.assertRegex(other.ctl("alarm", "list").stdout, f"memberID:{old} alarm:CORRUPT")
        other.ctl("put", "/works", "1")
        cluster.nodes[3].ctl("get", "/works")
        self.assertTrue(os.path.exists(os.path.join(victim.data_dir, "member.damaged", "log")))
        away.start()
        self.whole(cluster)
        self.assertNotEqual(self.ids(cluster)[0], old)

    def test_busy_learner(self):
        """There is room for one learner: nobody is removed before it can be added again."""
        cluster = self.cluster(3)
        victim, other, _ = cluster.nodes
        old = self.ids(cluster)[0]
        busy = other.ctl("member", "add", "busy", "--learner", "--peer-urls=http://127.0.0.1:1").stdout
        victim.kill()
        self.damage_log_head(victim)
        victim.start()
        wait_for(lambda: "another learner has to be promoted" in victim.process.log_text(),
                 "the log line")
        self.assertEqual(members(other)[victim.peer_url][0], old)
        other.ctl("member", "remove", re.search(r"Member\s+([0-9a-f]+) added", busy).group(1))
        self.whole(cluster)
        self.assertNotEqual(self.ids(cluster)[0], old)

    @staticmethod
    def damage_log_head(node):
        folder = os.path.join(node.data_dir, "member", "log")
        first = sorted(n for n in os.listdir(folder) if n.endswith(".wal"))[0]
        with open(os.path.join(folder, first), "r+b") as file:
            file.seek(600)
            file.write(b"damage")

    def test_older_copy_put_back(self):
        """An operator restores a member's directory from a copy of yesterday: all checksums are right, but the member
        has acknowledged more. It must notice, say so once, and come back as a new member."""
        cluster = self.cluster(3)
        self.whole(cluster)
        leader = cluster.leader()
        victim = next(n for n in cluster.nodes if n is not leader)
        before = self.ids(cluster)
        victim.kill()
        copy = victim.data_dir + ".copy"
        shutil.copytree(victim.data_dir, copy)
        victim.start()
        self.written(victim)
        victim.kill()
        self.wipe(victim)
        os.rename(copy, victim.data_dir)
        victim.start()
        load = self.load(cluster, clients=2)
        self.whole(cluster)
        load.finish(self)
        self.whole(cluster)
        after = self.ids(cluster)
        for node, old, new in zip(cluster.nodes, before, after):
            self.assertEqual(old != new, node is victim, node.name)
        log = victim.process.log_text()
        self.assertEqual(log.count("damaged data: "), 1)
        self.assertRegex(log, r"the log ends at entry \d+, but this member had acknowledged entry \d+")
        self.assertEqual(victim.ctl("get", "/k7", "--print-value-only").stdout, "v7\n")

    def test_one_of_two_is_wiped(self):
        """The other one is no majority, so nothing can be decided by itself: both say so, and their way out works."""
        cluster = self.cluster(2)
        self.whole(cluster)
        a, b = cluster.nodes
        self.written(a)
        b.kill()
        self.wipe(b)
        b.start()
        wait_for(lambda: "this cluster has two voters, and this one lost its data" in b.process.log_text(),
                 "the wiped one to say why it can't come back")
        wait_for(lambda: re.search(r"a majority of 2 voters is 2, and 1 answer.*Needed is one of: " + b.name,
                                   a.process.log_text()), "the other one to say what it needs")
        self.assertIn(f"--rescue NEWDIR --data-dir {a.data_dir}", a.process.log_text())
        self.assertIn(a.peer_url, b.process.log_text())
        self.assertEqual(a.ctl("get", "--consistency=s", "/k7", "--print-value-only").stdout, "v7\n")
        for node in (a, b):
            node.kill()
        fresh = a.data_dir + ".rescued"
        rescue = subprocess.run([QUORUMD, "--rescue", fresh] + a.argv()[1:], capture_output=True, text=True, check=False)
        self.assertEqual(rescue.returncode, 0, rescue.stdout + rescue.stderr)
        a.data_dir, joint = fresh, a.cluster_flags
        a.cluster_flags = []
        a.start()
        wait_for(a.healthy, "the cluster of one")
        self.wipe(b)
        a.ctl("member", "add", b.name, f"--peer-urls={b.peer_url}")
        b.cluster_flags = [f if f != "new" else "existing" for f in joint]
        b.start()
        self.whole(cluster)
        self.assertEqual(b.ctl("get", "/k49", "--print-value-only").stdout, "v49\n")

    def test_list_of_members_is_noted_again(self):
        """What the rejoin is to start from can't be written for a while: it is said once, and tried until it works."""
        cluster = self.cluster(3)
        node = cluster.nodes[0]
        noted = os.path.join(node.data_dir, "members")
        wait_for(lambda: os.path.exists(noted), "the list of members")
        node.stop()
        os.remove(noted)
        os.mkdir(noted)
        node.start()
        wait_for(lambda: "could not be noted" in node.process.log_text(), "the failure to be logged")
        os.rmdir(noted)
        wait_for(lambda: "is noted again" in node.process.log_text(), "another try")
        self.assertTrue(os.path.isfile(noted))
        self.assertEqual(node.process.log_text().count("could not be noted"), 1)

    def test_alone(self):
        """A cluster of one refuses to start, and says what is damaged and what can be done."""
        node = self.cluster(1).nodes[0]
        node.ctl("put", "/k", "v")
        node.stop()
        self.damage_log_head(node)
        node.start()
        self.assertEqual(node.process.wait(), 1)
        text = node.process.log_text()
        self.assertRegex(text, r"member/log/[0-9a-f]+\.wal at \d+")
        self.assertIn("--rescue NEWDIR", text)
        self.assertIn(node.data_dir, text)
        self.assertTrue(os.path.exists(os.path.join(node.data_dir, "member", "log")))

    def test_damaged_row_while_running(self):
        """A read finds it: the member gives up its id at once, and the clients go on with the others."""
        cluster = self.cluster(3)
        node = next(n for n in cluster.nodes if n is not cluster.leader())
        value = "precious" * 600
        for i in range(scaled(60, 30)):
            node.ctl("put", f"/big{i}", value)
        self.assertEqual(node.stop(), 0)
        folder = os.path.join(node.data_dir, "member", "store")
        database = next(os.path.join(folder, n) for n in os.listdir(folder) if n.endswith(".db"))
        with open(database, "r+b") as file:
            content = file.read()
            at = content.rindex(b"preciousprecious")
            file.seek(at)
            file.write(b"PRECIOUS")
        old = self.ids_of(cluster, node)
        node.start()
        def found():
            for i in range(scaled(60, 30)):
                node.ctl("--command-timeout=5s", "get", f"/big{i}", "--consistency=s", check=False)
            return "damaged data" in node.process.log_text()
        wait_for(found, "the damage to be found")
        self.whole(cluster)
        self.assertNotEqual(self.ids_of(cluster, node), old)
        self.assertEqual(node.ctl("get", "/big7", "--print-value-only").stdout, value + "\n")


class Places(HealCase):
    """One random place after the other."""

    def files(self, node):
        """(path, weight): what no check needs (spare segments, shared memory) comes up, but rarely."""
        weights = {"identity": 2, ".wal": 8, ".db": 6, ".db-wal": 4, ".current": 1}
        found = []
        for folder, _, names in os.walk(os.path.join(node.data_dir, "member")):
            for name in sorted(names):
                path = os.path.join(folder, name)
                kind = next((k for k in weights if name.endswith(k)), None)
                if os.path.getsize(path):
                    found.append((path, weights.get(kind, 0.5)))
        return sorted(found)

    def damage(self, node, chance):
        files = self.files(node)
        path = chance.choices([p for p, _ in files], [w for _, w in files])[0]
        size, used = os.path.getsize(path), used_end(path)
        place = chance.randrange(max(1, used if chance.random() < 0.9 else size))
        kind = chance.choice(["bit", "garbage", "zeros", "truncation"])
        with open(path, "r+b") as file:
            if kind == "truncation":
                file.truncate(place)
            elif kind == "bit":
                file.seek(place)
                byte = file.read(1) or b"\0"
                file.seek(place)
                file.write(bytes([byte[0] ^ (1 << chance.randrange(8))]))
            else:
                place -= place % 512
                file.seek(place)
                length = max(1, min(512, size - place))
                file.write(chance.randbytes(length) if kind == "garbage" else bytes(length))
        return f"{kind} at {place} of {used} used of {size} in {os.path.relpath(path, node.data_dir)}"

    def test_damaged_places(self):
        cluster = self.cluster(3, flags=["--snapshot-count", "200"])
        load = self.load(cluster, clients=2)
        chance = random.Random(SEED)
        noticed = 0
        for i in range(PLACES):
            node = chance.choice(cluster.nodes)
            old = self.ids_of(cluster, node)
            clean = chance.random() < 0.5
            if clean:
                self.assertEqual(node.stop(), 0)
            else:
                node.kill()
            what = self.damage(node, chance)
            print(f"    {i}: {node.name} {'stopped' if clean else 'killed'}, {what}", flush=True)
            node.start()
            self.whole(cluster)
            healed = self.ids_of(cluster, node) != old
            noticed += healed
            print(f"    {i}: {'came back as a new member' if healed else 'not noticed'}", flush=True)
        counts = load.finish(self)
        print(f"    {PLACES} places, {noticed} noticed; load: {counts}", flush=True)
        self.assertGreater(counts["ok"], 100)
        cluster.wait_equal()
