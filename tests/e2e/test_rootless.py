"""The daemon of an ordinary user: with subordinate ids (subuid(5)) and without. The test needs root to become that user."""
import contextlib
import fcntl
import json
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from apps import app_files, static_files
from harness import BUILD, ROOT, Spaced, child_pids, cmdline, free_port, wait_for

UID = 23456
USER = f"spaced-test-{os.getpid()}"
SUBIDS = (2000000000, 65536)  # ours alone: clear of what useradd gives, and of the ranges of daemons that run as root

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root to become an ordinary user")


@contextlib.contextmanager
def subordinate_ids():
    """Entries for the user in /etc/subuid and /etc/subgid, and only those are taken away again."""
    line = f"{USER}:{SUBIDS[0]}:{SUBIDS[1]}\n"
    files = [Path("/etc/subuid"), Path("/etc/subgid")]

    def change(add):
        for path in files:
            with open(path, "a+", encoding="utf-8") as f:
                fcntl.flock(f, fcntl.LOCK_EX)
                f.seek(0)
                kept = [l for l in f if l != line] + ([line] if add else [])
                f.truncate(0)
                f.writelines(kept)

    change(True)
    try:
        yield
    finally:
        change(False)


@pytest.fixture(scope="module", autouse=True)
def account():
    """--system: with no subordinate ids of its own."""
    subprocess.run(["useradd", "--system", "--no-create-home", "--uid", str(UID), "--shell", "/bin/sh", USER], check=True)
    yield
    subprocess.run(["userdel", USER], check=True, capture_output=True)


def become():
    return ["setpriv", "--reuid", str(UID), "--regid", str(gid()), "--clear-groups", "--",
            "env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/nonexistent"]


class Rootless(Spaced):
    def __init__(self, **options):
        super().__init__(become=become(), **options)
        os.chown(self.home, UID, gid())

    def owners(self):
        """{role: uid on the host}"""
        return {role: {os.stat(f"/proc/{pid}").st_uid for pid in pids} | {uid_of(pid) for pid in pids}
                for role, pids in self.pids().items()}


def uid_of(pid):
    return int(re.search(r"^Uid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M).group(1))


def gid():
    return pwd.getpwnam(USER).pw_gid


def ours():
    """Processes of the user and of the subordinate ids."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            uid = uid_of(int(entry.name))
        except OSError:
            continue
        if uid == UID or SUBIDS[0] <= uid < SUBIDS[0] + SUBIDS[1]:
            found.append(int(entry.name))
    return found


@pytest.fixture(params=["range", "one"])
def rootless(request):
    """A daemon of an ordinary user; its `kind` says whether it has subordinate ids."""
    with contextlib.ExitStack() as stack:
        if request.param == "range":
            stack.enter_context(subordinate_ids())
        daemon = Rootless(memory="256M")
        daemon.kind = request.param
        stack.callback(daemon.close)
        yield daemon.start()


WHO = """json.dumps({"started": STARTED, "pid": os.getpid(), "uid": os.getuid()}).encode()"""


def whoami_app():
    files = app_files(body=WHO)
    files["app.py"] = "import time\nSTARTED = time.time()\n" + files["app.py"]
    return files


def test_push_serve_restart_stop(rootless, repo):
    rootless.push_ok(repo(files=static_files("no root here")), "alice", "site")
    assert rootless.get_ok("alice", "site").text == "no root here"
    work = repo(files=whoami_app())
    rootless.push_ok(work, "alice", "app")
    first = rootless.get_ok("alice", "app").json()
    assert first["uid"] == 1000
    assert rootless.stop(signal.SIGTERM) == 0
    rootless.start()
    assert rootless.get_ok("alice", "app").json() == first, "adopted: the same process still serves"
    work.commit("second", app_files("second"))
    rootless.push_ok(work, "alice", "app")
    wait_for("the new release", lambda: rootless.get_ok("alice", "app").text == "second")
    assert rootless.stop(signal.SIGINT) == 0
    wait_for("no process to be left", lambda: not ours(), 20)
