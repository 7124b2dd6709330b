"""What people and deaths do to a Space in the middle of something: no push hangs, no stage lies, nothing pushed is lost."""
import os
import subprocess
import threading

import pytest

from apps import app_files, static_files
from harness import Repo, Spaced, wait_for


@pytest.fixture(scope="module")
def daemon():
    d = Spaced()
    try:
        d.start()
        yield d
    finally:
        d.close()


def slow_build():
    """Its dependencies take longer to install than any test."""
    return {**app_files(), "requirements.txt": "./pkg\n", "pkg/setup.py": "import time\ntime.sleep(300)\n"}


def never_healthy():
    return {**app_files(), "app.py": "import time\ntime.sleep(300)\n"}


class Push(threading.Thread):
    """A push that goes on while the test does something else."""

    def __init__(self, daemon, repo, name):
        super().__init__(daemon=True)
        self.spaced, self.repo, self.name_, self.done = daemon, repo, name, None
        self.start()

    def run(self):
        self.done = self.spaced.push(self.repo, "alice", self.name_)

    def end(self):
        self.join(60)
        assert not self.is_alive(), "the push still waits"
        return self.done.stdout


def ask(daemon, method, path, body=None):
    answer = daemon.request(method, path, headers={"Authorization": f"Bearer {daemon.token()}"}, body=body)
    assert answer.status == 200, answer.text
    return answer


def stage_of(daemon, name):
    return daemon.told("alice", name).get("stage")


def begin(daemon, tmp_path, name, files, stage):
    repo = Repo(tmp_path / name, files=files)
    push = Push(daemon, repo, name)
    wait_for(f"{stage} of {name}", lambda: stage_of(daemon, name) == stage, 60)
    return push


def test_delete_while_a_push_waits_for_the_start(daemon, tmp_path):
    push = begin(daemon, tmp_path, "gone", never_healthy(), "APP_STARTING")
    ask(daemon, "DELETE", "/api/repos/delete", '{"type": "space", "name": "gone"}')
    assert "the Space was deleted" in push.end()
    wait_for("the Space to be gone", lambda: daemon.spacectl("space", "show", "alice/gone")[0] != 0)


def test_restart_while_a_push_waits_for_the_start(daemon, tmp_path):
    push = begin(daemon, tmp_path, "again", never_healthy(), "APP_STARTING")
    ask(daemon, "POST", "/api/spaces/alice/again/restart")
    assert "Not deployed" in push.end()
    ask(daemon, "POST", "/api/spaces/alice/again/pause")


def test_pause_during_a_build(daemon, tmp_path):
    push = begin(daemon, tmp_path, "paused", slow_build(), "BUILDING")
    ask(daemon, "POST", "/api/spaces/alice/paused/pause")
    assert "was paused" in push.end()
    assert daemon.runtime("alice", "paused")["stage"] == "PAUSED"
    assert "message" not in daemon.runtime("alice", "paused")


def test_restart_right_after_a_pause(daemon, tmp_path):
    """The end of the cancelled build says nothing about the one that was asked for since."""
    push = begin(daemon, tmp_path, "twice", slow_build(), "BUILDING")
    first = daemon.ctl_json("build", "list")[0]["id"]
    ask(daemon, "POST", "/api/spaces/alice/twice/pause")
    ask(daemon, "POST", "/api/spaces/alice/twice/restart")
    push.end()
    states = lambda: {b["id"]: b["state"] for b in daemon.ctl_json("build", "list")}
    wait_for("the first build to end", lambda: states()[first] == "cancelled")
    assert stage_of(daemon, "twice") == "BUILDING"
    ask(daemon, "POST", "/api/spaces/alice/twice/pause")


def test_many_restarts_take_few_sandboxes(daemon, tmp_path):
    daemon.push_ok(Repo(tmp_path / "r", files=app_files("calm")), "alice", "calm")
    most = 0
    for _ in range(40):
        ask(daemon, "POST", "/api/spaces/alice/calm/restart")
        tops = [v for v in os.listdir(daemon.state / "volumes") if v.startswith("top-")]
        most = max(most, len(tops))
        assert daemon.get_ok("alice", "calm").text == "calm"
    assert most <= 12, most
    daemon.wait_stage("alice", "calm", "RUNNING")


def test_a_branch_that_moved_without_a_build(daemon, tmp_path):
    """As when control dies between the move of the ref and the queueing of its build: git says "up to date" for ever."""
    repo = Repo(tmp_path / "r", files=app_files("old"))
    daemon.push_ok(repo, "alice", "moved")
    daemon.stop()
    new = repo.commit("new", app_files("new"))
    bare = daemon.state / "repos" / f"{space_id(daemon, repo)}.git"
    owner = os.stat(bare)
    subprocess.run(["git", "-c", "safe.directory=*", "fetch", "-q", "-u", str(repo.path), "+main:refs/heads/main"],
                   cwd=bare, env={**repo.env, "GIT_DIR": str(bare)}, check=True)
    for path, folders, files in os.walk(bare):
        for name in [path, *(os.path.join(path, f) for f in folders + files)]:
            os.chown(name, owner.st_uid, owner.st_gid)
    daemon.start()
    wait_for("the new commit to run", lambda: daemon.get("alice", "moved").text == "new", 60)
    assert daemon.runtime("alice", "moved")["sha"] == new


def space_id(daemon, repo):
    """The folder whose main is the repository's: the only one with this commit."""
    for bare in (daemon.state / "repos").glob("*.git"):
        heads = [f.read_text() for f in [bare / "refs/heads/main", bare / "packed-refs"] if f.exists()]
        if any(repo.git("rev-parse", "HEAD~1") in text for text in heads):
            return bare.name[:-4]
    raise AssertionError("no repository of this push")


def test_leftovers_of_a_death(daemon, tmp_path):
    """What lies in the state folder and belongs to no record goes away by itself; what is young may belong to somebody."""
    daemon.push_ok(Repo(tmp_path / "r", files=static_files("here")), "alice", "stays")
    owner = os.stat(daemon.state / "repos")
    old, young = "0" * 23 + "1", "0" * 23 + "2"
    folders = [daemon.state / "repos" / f"{i}.git" for i in (old, young)] + [daemon.state / "sites" / i for i in (old, young)]
    folders.append(daemon.state / "sites" / f".tmp-{old}")
    for folder in folders:
        (folder / "some/where").mkdir(parents=True)
        (folder / "some/file").write_text("secret")
        for path in [folder, folder / "some", folder / "some/where", folder / "some/file"]:
            os.chown(path, owner.st_uid, owner.st_gid)
        if old in folder.name:
            os.utime(folder, (1e9, 1e9))
    daemon.restart()
    gone = [f for f in folders if old in f.name]
    wait_for("the leftovers to go", lambda: not any(f.exists() for f in gone))
    assert all(f.exists() for f in folders if young in f.name)
    assert daemon.get_ok("alice", "stays").text == "here"
