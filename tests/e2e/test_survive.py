"""kill -9 of each role under load, and stop and start of the daemon: nothing accepted is lost, no app is restarted."""
import contextlib
import os
import signal
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from apps import app_files, static_files
from harness import app_processes, child_pids, wait_for

# The app says which process it is: its own start time, seen from outside, must not change.
IDENTITY = "json.dumps({'pid': os.getpid(), 'started': STARTED}).encode()"


def identity_app():
    files = app_files(body=IDENTITY)
    files["app.py"] = "import time\nSTARTED = time.time()\n" + files["app.py"]
    return files


class Load:
    """Visitors that ask all the time and note each answer that is not the app's."""

    def __init__(self, spaced, owner, name, threads=4):
        self.spaced, self.owner, self.name = spaced, owner, name
        self.good, self.wrong, self.identities = 0, [], set()
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.visit, daemon=True) for _ in range(threads)]

    def visit(self):
        while not self.stop.is_set():
            try:
                answer = self.spaced.get(self.owner, self.name, timeout=60)
                if answer.status == 200:
                    self.good += 1
                    self.identities.add(answer.text)
                else:
                    self.wrong.append(f"{answer.status} {answer.text[:80]}")
            except Exception as error:  # a killed proxy resets what it held
                self.wrong.append(repr(error))
                time.sleep(0.02)

    def __enter__(self):
        for t in self.threads:
            t.start()
        wait_for("the load to flow", lambda: self.good > 20)
        return self

    def __exit__(self, *exc):
        self.stop.set()
        for t in self.threads:
            t.join()


@pytest.fixture(scope="module")
def daemon():
    from harness import Spaced
    d = Spaced()
    try:
        d.start()
        yield d
    finally:
        d.close()


@pytest.fixture(scope="module")
def running(daemon, tmp_path_factory):
    from harness import Repo
    daemon.push_ok(Repo(tmp_path_factory.mktemp("app") / "repo", files=identity_app()), "alice", "steady")
    daemon.push_ok(Repo(tmp_path_factory.mktemp("site") / "repo", files=static_files("files")), "alice", "site")
    return daemon


@pytest.mark.parametrize("role", ["spawner", "control", "proxy", "static"])
def test_kill_of_a_role(running, role, tmp_path):
    from harness import Repo
    before = running.get_ok("alice", "steady").text
    with Load(running, "alice", "steady") as load:
        good = load.good
        running.kill_role(role)
        wait_for("the load to flow again", lambda: load.good > good + 100)
    assert load.identities == {before}, "the app was restarted"
    if role not in ("proxy",):  # requests that a killed proxy held are lost with it, no others
        assert not load.wrong, load.wrong[:5]
    assert running.get_ok("alice", "site").text == "files"
    assert running.spacectl("user", "add", f"after-{role}")[0] == 0
    # Everything works as before: a new push is built, started and served.
    out = running.push_ok(Repo(tmp_path / "repo", files=identity_app()), "alice", f"after-{role}")
    assert running.get("alice", f"after-{role}").status == 200, out


def name(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # it has just ended
        return None


def makers(daemon):
    """Who makes sandboxes ahead (sandbox/shells.h): a child of the spawner, and a child of that."""
    found, parents = [], daemon.pids("spawner")
    while parents:
        parents = [pid for parent in parents for pid in child_pids(parent) if name(pid) == "spaced-shells"]
        found += parents
    return found


def test_kill_of_both_makers(running, tmp_path):
    """At once: then nobody can replace them. The spawner makes way for one that has makers, and no visitor notices."""
    from harness import Repo
    before = running.get_ok("alice", "steady").text
    wait_for("both makers", lambda: len(makers(running)) == 2)
    spawner = running.pids("spawner")
    with Load(running, "alice", "steady") as load:
        doomed = makers(running)
        for sig in (signal.SIGSTOP, signal.SIGKILL):
            for pid in doomed:
                os.kill(pid, sig)
        out = running.push_ok(Repo(tmp_path / "repo", files=identity_app()), "alice", "after-makers")
        wait_for("another spawner, with makers", lambda: running.pids("spawner") != spawner and len(makers(running)) == 2)
    assert load.identities == {before} and not load.wrong, load.wrong[:5]
    assert running.get("alice", "after-makers").status == 200, out


def test_kill_of_everything_but_the_apps(running):
    """The whole daemon is killed, parent first; the next one adopts the app."""
    before = running.get_ok("alice", "steady").text
    pids = [running.process.pid, *sum(running.pids().values(), [])]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # some end by themselves without the parent
            os.kill(pid, signal.SIGKILL)
    running.process.wait()
    running.start()
    assert running.get_ok("alice", "steady").text == before
    assert running.get_ok("alice", "site").text == "files"
    running.wait_stage("alice", "steady", "RUNNING")


def test_stop_and_start_adopts(running):
    before = running.get_ok("alice", "steady").text
    for _ in range(3):
        assert running.stop(signal.SIGTERM) == 0
        running.start()
        assert running.get_ok("alice", "steady").text == before


def test_an_app_that_ends_while_the_daemon_is_away(running, tmp_path):
    """It is noticed at the next start, and started again or shown with its reason."""
    from harness import Repo
    running.push_ok(Repo(tmp_path / "repo", files=app_files("bye")), "alice", "ender")
    running.stop(signal.SIGTERM)

    def ended():
        for pid in app_processes("alice/ender"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not app_processes("alice/ender")

    wait_for("its end", ended)
    running.start()
    wait_for("a new start or the reason", lambda: running.stage("alice", "ender") == "RUNTIME_ERROR"
             or running.get("alice", "ender").text == "bye")


@pytest.mark.parametrize("role", ["control", "spawner"])
def test_kill_during_a_build(running, tmp_path, role):
    """The push was accepted: the build is taken up again and the app gets live."""
    from harness import Repo
    work = Repo(tmp_path / "repo", files={**app_files(role), "requirements.txt": "itsdangerous==2.1.2\n" if role == "control"
                                          else "itsdangerous==2.1.1\n"})
    running.push_ok(work, "alice", f"mid-{role}", "main", "-o", "nowait")
    running.kill_role(role)
    assert work.git("ls-remote", running.remote("alice", f"mid-{role}"), "refs/heads/main").split()[0] == work.head()
    running.wait_stage("alice", f"mid-{role}", "RUNNING", 120)
    assert running.get_ok("alice", f"mid-{role}").text == role


def test_kill_of_control_during_pushes(running, tmp_path):
    """Whatever a client was told is accepted is there afterwards."""
    from harness import Repo
    accepted = []
    token = running.token()

    def pusher(n):
        for i in range(6):
            work = Repo(tmp_path / f"r{n}-{i}", files=static_files(f"{n}-{i}"))
            name = f"storm-{n}-{i}"
            done = running.push(work, "alice", name, "main", "-o", "nowait", token=token)
            if "main -> main" in done.stdout:
                accepted.append((name, work))

    threads = [threading.Thread(target=pusher, args=(n,)) for n in range(3)]
    for t in threads:
        t.start()
    for _ in range(4):
        time.sleep(0.4)
        running.kill_role("control")
    for t in threads:
        t.join()
    assert accepted, "no push went through at all"
    for name, work in accepted:
        assert work.git("ls-remote", running.remote("alice", name), "refs/heads/main").split()[0] == work.head(), name
    for name, work in accepted:
        running.wait_stage("alice", name, "RUNNING", 60)


def test_kill_of_a_monitor(running):
    """Another one takes its place with the same log; the app does not notice."""
    space_id = running.show("alice", "steady")["_id"]
    with Load(running, "alice", "steady") as load:
        before = running.monitors(space_id)
        assert len(before) == 1, before
        os.kill(before[0], signal.SIGKILL)
        wait_for("another monitor", lambda: len(now := running.monitors(space_id)) == 1 and now != before)
        good = load.good
        wait_for("the load to flow on", lambda: load.good > good + 50)
    assert len(load.identities) == 1 and not load.wrong, (load.identities, load.wrong[:5])
    running.spacectl("space", "restart", "alice/steady", check=True)
    wait_for("another instance", lambda: (a := running.get("alice", "steady")).status == 200
             and a.text not in load.identities)


def test_interrupt_stops_the_apps(start_spaced, repo):
    daemon = start_spaced()
    daemon.push_ok(repo(files=identity_app()), "alice", "ends")
    first = daemon.get_ok("alice", "ends").json()["started"]
    assert daemon.stop(signal.SIGINT) in (0, 130)
    daemon.start()
    assert daemon.get_ok("alice", "ends").json()["started"] != first, "SIGINT left the app running"


def test_starts_that_fail_keep_nobody_waiting(start_spaced, repo):
    """After a stop all apps start again, a few at a time; those that cannot begin at all make way for the next."""
    own = start_spaced()
    names = [f"row{i}" for i in range(9)]
    for name in names:
        own.push_ok(repo(files=identity_app()), "alice", name)
    own.stop(signal.SIGINT)
    bad = names[:4] + names[5:]  # as many as start at a time, on both sides of the good one
    with sqlite3.connect(own.state / "control" / "spaced.db") as db:
        for name, space, generation in db.execute("SELECT name, id, generation FROM spaces").fetchall():
            if name in bad:  # where its next log would be
                (own.state / "logs" / f"run-{space}-{generation + 1}.log").mkdir()
    own.start()
    for name in names:
        if name in bad:
            own.wait_stage("alice", name, "RUNTIME_ERROR")
        else:
            own.get_ok("alice", name)
