"""One save is one revision, whole, and close(2) returns its outcome: for each kind of writer."""
import os
import shutil
import signal
import subprocess
import time

from harness import TestCase, wait_for

# A script that writes CONTENT to "$F" in one save; NEEDS is a command that must be there.
WRITERS = {
    "bash": ("bash", 'bash -c \'printf "%s" "$C" > "$F"\''),
    "dash": ("dash", 'dash -c \'printf "%s" "$C" > "$F"\''),
    "bash group": ("bash", 'bash -c \'{ printf "%s" "${C%%/*}"; /usr/bin/printf "/%s" "${C#*/}"; } > "$F"\''),
    "bash subshell": ("bash", 'bash -c \'( printf "%s" "$C" ) > "$F"\''),
    "bash exec": ("bash", 'bash -c \'exec 3> "$F"; printf "%s" "$C" >&3; exec 3>&-\''),
    "here document": ("bash", 'bash -c \'cat > "$F" <<< "$C"; \''),
    "loop": ("bash", 'bash -c \'for w in $C; do echo $w; done > "$F"\''),
    "pipe": ("bash", 'printf "%s" "$C" | cat | cat > "$F"'),
    "cp": ("cp", 'cp "$S" "$F"'),
    "mv": ("mv", 'cp "$S" "$S.mv"; mv "$S.mv" "$F"'),
    "install": ("install", 'install -m 644 "$S" "$F"'),
    "dd": ("dd", 'dd if="$S" of="$F" bs=64 2>/dev/null'),
    "tee": ("tee", 'tee "$F" < "$S" > /dev/null'),
    "awk": ("awk", 'awk \'{print > ENVIRON["F"]}\' "$S"'),
    "perl": ("perl", 'perl -e \'open(F, ">", $ENV{F}); print F $ENV{C}; close(F) or die\''),
    "python": ("python3", 'python3 -c \'import os; open(os.environ["F"], "w").write(os.environ["C"])\''),
    "python without close": ("python3", 'python3 -c \'import os; f = os.open(os.environ["F"], 577, 420); '
                             'os.write(f, os.environ["C"].encode()); os._exit(0)\''),
    "python subprocess": ("python3", 'python3 -c \'import os, subprocess; subprocess.run(["cat", '
                          'os.environ["S"]], stdout=open(os.environ["F"], "w"), check=True)\''),
    "node": ("node", 'node -e \'require("fs").writeFileSync(process.env.F, process.env.C)\''),
    "rsync inplace": ("rsync", 'rsync --inplace "$S" "$F"'),
    "sort": ("sort", 'sort -o "$F" "$S"'),
    "background child": ("bash", 'bash -c \'( (sleep .3; printf "%s" "$C") & ) > "$F"; '
                         'while [ ! -s "$F" ]; do sleep .05; done\''),
    # Its temporary name looks like any other: two more revisions, but still one of the file.
    "perl -pi": ("perl", 'printf "%s" "$C" > "$S"; [ -e "$F" ] && perl -pi -e "s/.*/\$ENV{C}/" "$F" || cp "$S" "$F"'),
    "xargs": ("xargs", 'printf "%s" "$C" | xargs printf "%s " > "$F"'),
}

# Edits of an existing file: "old" becomes "new", one put of the file.
EDITORS = {
    "sed -i": ("sed", 'sed -i s/old/new/ "$F"'),
        "vim": ("vim", 'vim -u NONE -n -es -c "%s/old/new/" -c wq "$F" < /dev/null'),
    "vim with swap file": ("vim", 'vim -u NONE -es -c "%s/old/new/" -c wq "$F" < /dev/null'),
    "rsync": ("rsync", 'rsync -I "$S" "$F"'),
    "python replace": ("python3", 'python3 -c \'import os, tempfile; f = os.environ["F"]; '
                       't = os.path.join(os.path.dirname(f), ".f.aaaaaa"); open(t, "w").write("new text\\n"); '
                       'os.replace(t, f)\''),
}


class Saves(TestCase):
    def setUp(self):
        super().setUp()
        self.servers = self.cluster(1)
        self.node = self.servers.nodes[0]
        self.mnt = self.mount(self.servers.source())

    def revision(self):
        return self.node.status()["header"]["revision"]

    def history(self, key, since):
        """What every revision after `since` made of the key."""
        import base64
        import json
        versions = []
        for revision in range(since + 1, self.revision() + 1):
            reply = json.loads(self.node.ctl("get", f"--rev={revision}", key, "-w", "json").stdout)
            kv = (reply.get("kvs") or [None])[0]
            if kv and kv["mod_revision"] == revision:
                versions.append(base64.b64decode(kv.get("value", "")))
        return versions

    def run_writer(self, name, needs, script, content, path, source):
        if not shutil.which(needs):
            self.skipTest(f"{needs} is not installed")
        with open(source, "w", encoding="ascii") as file:
            file.write(content)
        environment = dict(os.environ, C=content, F=path, S=source, HOME=self.folder)
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60,
                              env=environment, check=False)
        self.assertEqual(done.returncode, 0, f"{name}: {done.stderr}")

    def test_every_writer_makes_one_revision(self):
        for existing in (False, True):
            for number, (name, (needs, script)) in enumerate(WRITERS.items()):
                with self.subTest(f"{name}, {'existing' if existing else 'new'} file"):
                    file = f"w{number}-{existing}"
                    if existing:
                        self.shell(f"echo before > {self.mnt.path(file)}")
                    before = self.revision()
                    content = f"content of {name.replace(' ', '_')}/second part"
                    self.run_writer(name, needs, script, content, self.mnt.path(file),
                                    os.path.join(self.folder, "source"))
                    versions = self.history("/" + file, before)
                    self.assertEqual(len(versions), 1, f"{name}: {versions}")
                    self.assertEqual(b"".join(versions[0].split()),
                                     "".join(content.split()).encode(), name)

    def test_every_editor_makes_one_revision(self):
        for number, (name, (needs, script)) in enumerate(EDITORS.items()):
            with self.subTest(name):
                file = f"e{number}"
                self.shell(f"echo old text > {self.mnt.path(file)}")
                before = self.revision()
                self.run_writer(name, needs, script, "new text\n", self.mnt.path(file),
                                os.path.join(self.folder, "source"))
                self.assertEqual(self.history("/" + file, before), [b"new text\n"], name)
                self.assertEqual(self.revision(), before + 1, f"{name}: other keys were written")

    def test_git_works(self):
        repository = self.mnt.path("repo")
        self.shell(f"git init -q {repository} && cd {repository} && echo 1 > f && git add f && "
                   "git -c user.name=t -c user.email=t@t commit -qm one && echo 2 > f && "
                   "git -c user.name=t -c user.email=t@t commit -qam two && git fsck --strict && "
                   "test $(git rev-list --count HEAD) = 2")

    def test_a_descriptor_closed_by_exec_hangs_nothing(self):
        path = self.mnt.path("cloexec")
        self.shell(f"python3 -c 'import os; f = os.open(\"{path}\", os.O_WRONLY | os.O_CREAT | "
                   f"os.O_CLOEXEC, 0o644); os.write(f, b\"by exec\"); os.execv(\"/bin/true\", [\"true\"])'"
                   "; ps aux > /dev/null")
        wait_for(lambda: self.read(path) == b"by exec", "the content")

    def test_a_killed_writer_publishes_nothing(self):
        path = self.mnt.path("killed")
        self.shell(f"echo whole > {path}")
        before = self.revision()
        writer = subprocess.Popen(
            ["python3", "-c", "import os, sys, time; f = os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC);"
             "os.write(f, b'half'); print('written', flush=True); time.sleep(100)", path],
            stdout=subprocess.PIPE, text=True)
        self.assertEqual(writer.stdout.readline(), "written\n")
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        unsaved = self.mnt.path(".quorumfs/unsaved")
        name = wait_for(lambda: os.listdir(unsaved), "the half in unsaved/")[0]
        self.assertEqual(self.read(os.path.join(unsaved, name)), b"half")
        self.assertEqual(self.revision(), before)
        self.assertEqual(self.read(path), b"whole\n")

    def test_close_returns_the_outcome(self):
        """The key changes under a handle that did not truncate: its close says ESTALE."""
        path = self.mnt.path("contended")
        self.shell(f"echo original > {path}")
        handle = os.open(path, os.O_RDWR)
        os.pwrite(handle, b"OVER", 0)
        self.node.ctl("put", "/contended", "elsewhere")
        with self.assertRaises(OSError) as failure:
            os.close(handle)
        self.assertEqual(failure.exception.errno, 116)
        self.assertEqual(self.read(path), b"elsewhere")

    def test_fsync_commits(self):
        path = self.mnt.path("synced")
        with open(path, "wb", buffering=0) as file:
            file.write(b"first")
            os.fsync(file.fileno())
            self.assertEqual(self.node.ctl("get", "--print-value-only", "/synced").stdout, "first\n")
            file.write(b" second")
        self.assertEqual(self.node.ctl("get", "--print-value-only", "/synced").stdout,
                         "first second\n")

    def test_a_failed_save_keeps_its_bytes(self):
        path = self.mnt.path("lost")
        self.shell(f"echo 0 > {path}")
        handle = os.open(path, os.O_WRONLY | os.O_TRUNC)
        os.write(handle, b"precious")
        self.node.kill()
        begun = time.monotonic()
        with self.assertRaises(OSError):
            os.close(handle)
        self.assertLess(time.monotonic() - begun, 50)
        self.node.start()
        self.servers.wait_healthy()
        unsaved = self.mnt.path(".quorumfs/unsaved")
        names = wait_for(lambda: os.listdir(unsaved), "the bytes in unsaved/")
        self.assertEqual(self.read(os.path.join(unsaved, names[0])), b"precious")
