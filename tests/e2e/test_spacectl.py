"""spacectl: verbs, exit statuses, JSON, and that it says clearly what is wrong."""
import json
import os
import re
import signal
import socket
import subprocess
import time

import pytest

from apps import app_files, static_files
from harness import BUILD, ROOT, wait_for

PAGE = {"README.md": "---\nsdk: static\n---\n", "index.html": "<h1>hi</h1>\n"}


def ctl(*args, env=None, cwd=None):
    done = subprocess.run([str(BUILD / "spacectl"), *map(str, args)], text=True, capture_output=True, timeout=60,
                          env={**os.environ, **(env or {})}, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def site(spaced, tmp_path_factory):
    from harness import Repo

    work = Repo(tmp_path_factory.mktemp("ctl") / "site", files=PAGE)
    spaced.push_ok(work, "alice", "ctl-site")
    spaced.wait_stage("alice", "ctl-site", "RUNNING")
    return work


# --- usage

def test_help_names_every_verb():
    code, out, _ = ctl("--help")
    assert code == 0
    verbs = re.findall(r"^  ((?:space|build|release|user|token) \w+|status|doctor)", out, re.M)
    assert len(verbs) >= 18
    for verb in verbs:
        code, text, err = ctl(*verb.split(), "--help")
        assert code == 0 and text.startswith("usage: spacectl") and verb in text and not err


@pytest.mark.parametrize("args", [[], ["nonsense"], ["space"], ["space", "fly"], ["user", "add"], ["user", "add", "a", "b"],
                                  ["--state"], ["space", "list", "--no-such"], ["space", "list", "--factory"],
                                  ["space", "show", "no-slash"], ["space", "show", "a/b/c"], ["space", "logs", "a/b", "--tail"],
                                  ["space", "logs", "a/b", "--tail", "x"], ["user", "add", "x", "--admin=yes"],
                                  ["a", "b", "c", "d", "e", "f", "g"]])
def test_wrong_usage_is_2(args):
    code, out, err = ctl(*args)
    assert code == 2 and not out and err


def test_no_daemon(tmp_path):
    code, out, err = ctl("--state", tmp_path, "space", "list")
    assert code == 1 and not out and "no spaced runs" in err and str(tmp_path) in err
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(tmp_path / "control.sock"))
        code, _, err = ctl("--state", tmp_path, "status")
        assert code == 1 and "no spaced runs" in err


def test_which_state_folder(spaced, tmp_path):
    assert ctl("status", env={"SPACED_STATE": str(spaced.state)})[0] == 0
    # ./var, when a daemon's socket is there.
    (tmp_path / "var").symlink_to(spaced.state)
    assert ctl("status", cwd=tmp_path, env={"SPACED_STATE": ""})[0] == 0
    # A path longer than an address of a unix socket.
    deep = tmp_path / ("d" * 120)
    deep.symlink_to(spaced.state)
    assert ctl("--state", deep, "status")[0] == 0


def test_doctor_works_without_a_daemon(tmp_path):
    code, out, err = ctl("--state", tmp_path / "not" / "there", "doctor")
    assert code in (0, 1) and not err
    for word in ("kernel", "user namespaces", "cgroups", "Landlock", "egress", "python", "uv", "node", "disk", "DNS"):
        assert re.search(rf"^(ok|lacks|FAILS) +{word}", out, re.M), word
    code, out, _ = ctl("--json", "--state", tmp_path, "doctor")
    report = json.loads(out)
    assert report["daemon"] is None and report["ok"] == (code == 0)
    assert all(set(c) == {"check", "level", "found", "fix"} and (c["level"] == "ok") == (c["fix"] is None)
               for c in report["checks"])


# --- users and tokens

def test_users_and_tokens(spaced):
    assert spaced.spacectl("user", "add", "clara")[0] == 0
    code, _, err = spaced.spacectl("user", "add", "Clara")
    assert code == 1 and "already exists" in err
    for bad in ("x", "-x-", "a--b", "api", "1234", "a/b", "ünï"):
        assert spaced.spacectl("user", "add", "--", bad)[0] == 1, bad
    code, out, _ = spaced.spacectl("token", "add", "clara", "--label", "laptop")
    assert code == 0 and re.fullmatch(r"hf_[A-Za-z0-9]{34}\n", out)
    token = out.strip()
    headers = {"Authorization": f"Bearer {token}"}
    assert spaced.request("GET", "/api/whoami-v2", headers=headers).json()["name"] == "clara"
    row = [t for t in spaced.ctl_json("token", "list", "clara")][0]
    assert row["label"] == "laptop" and token.startswith(row["prefix"]) and "token" not in row
    assert row["id"] in [t["id"] for t in spaced.ctl_json("token", "list")]
    assert spaced.spacectl("token", "remove", row["id"])[0] == 0
    assert spaced.request("GET", "/api/whoami-v2", headers=headers).status == 401
    assert spaced.spacectl("token", "remove", row["id"])[0] == 1
    assert spaced.spacectl("token", "add", "nobody-here")[0] == 1
    assert "clara" in [u["name"] for u in spaced.ctl_json("user", "list")]
    assert spaced.spacectl("user", "remove", "clara")[0] == 0
    assert "clara" not in [u["name"] for u in spaced.ctl_json("user", "list")]


def test_the_token_is_nowhere_on_disk(spaced):
    token = spaced.token("dora")
    spaced.request("GET", "/api/whoami-v2", headers={"Authorization": f"Bearer {token}"})
    found = subprocess.run(["grep", "-rlF", "--devices=skip", token, str(spaced.state / "control"), str(spaced.state / "logs"),
                            str(spaced.log_path)], text=True, capture_output=True)
    assert found.returncode == 1, found.stdout


def test_the_socket_is_not_for_everybody(spaced):
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    mode = (spaced.state / "control.sock").stat().st_mode & 0o777
    assert mode & 0o007 == 0 or mode == 0o666
    # By a relative path: not everybody finds the way to a clone below /root.
    done = subprocess.run([f"./{os.path.relpath(BUILD, ROOT)}/spacectl", "--state", str(spaced.state), "user", "list"], text=True,
                          cwd=ROOT, capture_output=True, user=65534, group=65534, extra_groups=[])
    assert done.returncode == 1 and done.stderr and "alice" not in done.stdout


def test_users_with_spaces_stay(spaced, site):
    code, _, err = spaced.spacectl("user", "remove", "alice")
    assert code == 1 and "Spaces" in err


# --- Spaces

def test_space_list_and_show(spaced, site):
    code, out, _ = spaced.spacectl("space", "list")
    assert code == 0 and re.search(r"^SPACE +STAGE +SDK", out)
    assert re.search(rf"^alice/ctl-site +RUNNING +static +public .*{spaced.app_url('alice', 'ctl-site')}", out, re.M)
    assert "alice/ctl-site" in [s["id"] for s in spaced.ctl_json("space", "list", "alice")]
    code, out, _ = spaced.spacectl("space", "show", "alice/ctl-site")
    assert code == 0 and re.search(rf"^Serving +{site.head()}", out, re.M)
    code, _, err = spaced.spacectl("space", "show", "alice/missing")
    assert code == 1 and "not found" in err
    assert spaced.show("alice", "ctl-site")["spaced"]["defaultBranch"] == "main"


def test_builds_releases_events(spaced, site):
    build = spaced.ctl_json("build", "list", "alice/ctl-site")[0]
    assert build["state"] == "succeeded" and build["commit"] == site.head()
    assert build["id"] in [b["id"] for b in spaced.ctl_json("build", "list")]
    assert spaced.ctl_json("build", "show", build["id"])["space"] == "alice/ctl-site"
    code, _, err = spaced.spacectl("build", "cancel", build["id"])
    assert code == 1 and "ended" in err
    assert spaced.spacectl("build", "show", "0" * 24)[0] == 1
    assert spaced.spacectl("build", "logs", build["id"])[1] == spaced.logs("alice", "ctl-site", build=True)
    assert spaced.ctl_json("release", "list", "alice/ctl-site")[0]["current"] is True
    assert "push" in spaced.spacectl("space", "events", "alice/ctl-site")[1]
    log = spaced.logs("alice", "ctl-site", build=True)
    assert spaced.spacectl("space", "logs", "--build", "--tail", "1", "alice/ctl-site")[1] == log.splitlines(True)[-1]


def test_status(spaced, site):
    status = spaced.ctl_json("status")
    assert status["spaces"] >= 1 and status["running"] >= 1 and status["spawner"] is True
    assert status["url"] == spaced.url


def test_follow_a_running_app_then_pause_it(spaced, repo):
    work = repo("hello")
    spaced.push_ok(work, "alice", "ctl-app")
    spaced.wait_stage("alice", "ctl-app", "RUNNING")
    follower = subprocess.Popen([str(BUILD / "spacectl"), "--state", str(spaced.state), "space", "logs", "-f", "alice/ctl-app"],
                                stdout=subprocess.PIPE, text=True)
    try:
        spaced.get_ok("alice", "ctl-app", "/?seen-by-the-follower")
        while "seen-by-the-follower" not in (line := follower.stdout.readline()):
            assert line, "the log ended"
        code, out, _ = spaced.spacectl("space", "restart", "alice/ctl-app")
        assert code == 0 and "alice/ctl-app is" in out
        spaced.wait_stage("alice", "ctl-app", "RUNNING")
        # The run that was followed is over.
        assert follower.wait(120) == 0
    finally:
        follower.kill()
        follower.wait()
        follower.stdout.close()
    code, out, _ = spaced.spacectl("--json", "space", "pause", "alice/ctl-app")
    assert code == 0 and json.loads(out)["stage"] == "PAUSED"
    assert spaced.get("alice", "ctl-app").status == 503
    assert spaced.spacectl("space", "restart", "alice/ctl-app")[0] == 0
    spaced.wait_stage("alice", "ctl-app", "RUNNING")
    spaced.get_ok("alice", "ctl-app")


def test_cancel_a_build(start_spaced, repo):
    daemon = start_spaced(builds=1)
    work = repo(files={"README.md": "---\nsdk: static\napp_build_command: sleep 600\napp_file: dist/index.html\n---\n",
                       "package.json": '{"name": "x", "version": "1.0.0"}\n', "index.html": "x\n"})
    assert daemon.push(work, "alice", "slow", "main", "-o", "nowait").returncode == 0

    def running():
        builds = daemon.ctl_json("build", "list", "alice/slow")
        return builds and builds[0]["state"] == "running" and builds[0]

    build = wait_for("the build to run", running)
    code, out, err = daemon.spacectl("build", "cancel", build["id"])
    assert code == 0, err
    wait_for("the build to be cancelled",
             lambda: daemon.ctl_json("build", "show", build["id"])["state"] == "cancelled")


def test_json_does_not_steer_the_terminal(spaced, repo):
    """U+009B is to many a terminal what ESC [ is: control characters come as escapes, and all else as it is."""
    title = "\x1b[2J \x9b2J \x7f \xa0 \u00e9 🚀"
    quoted = title.replace("\x1b", "\\e").replace("\x9b", "\\x9b").replace("\x7f", "\\x7f")
    files = {**static_files(), "README.md": f'---\nsdk: static\ntitle: "{quoted}"\n---\n'}
    spaced.push_ok(repo(files=files), "alice", "steers")
    said = spaced.spacectl("--json", "space", "show", "alice/steers", check=True)[1]
    assert json.loads(said)["cardData"]["title"] == title
    assert not any(c < " " and c != "\n" or "\x7f" <= c <= "\x9f" for c in said)
    assert "\xa0 \u00e9 🚀" in said


def test_json_lines_of_a_log_are_all_of_it(spaced, repo):
    """Also the last one, when no newline ends it; and they steer no terminal."""
    files = app_files()
    files["app.py"] = "print('one \\u009b2J')\nprint('last words', end='', flush=True)\n" + files["app.py"].replace(
        'print("serving", flush=True)', "")
    spaced.push_ok(repo(files=files), "alice", "ctl-words")

    def said():
        return spaced.spacectl("--json", "space", "logs", "alice/ctl-words", check=True)[1]

    # the app serves before its monitor has written down what it said
    wait_for("the last words", lambda: [json.loads(line)["data"] for line in said().splitlines()][-2:] ==
             ["one \x9b2J", "last words"])
    assert "\x9b" not in said()


def test_delete(spaced, repo):
    spaced.push_ok(repo(files=PAGE), "alice", "ctl-gone")
    spaced.wait_stage("alice", "ctl-gone", "RUNNING")
    folder = spaced.state / "repos" / (spaced.show("alice", "ctl-gone")["_id"] + ".git")
    assert folder.is_dir()
    code, out, _ = spaced.spacectl("space", "delete", "alice/ctl-gone")
    assert code == 0 and "deleted" in out
    assert spaced.spacectl("space", "show", "alice/ctl-gone")[0] == 1
    wait_for("its repository to go", lambda: not folder.exists())
    wait_for("its host name to go", lambda: spaced.get("alice", "ctl-gone").status == 404)


# --- size

def test_a_thousand_spaces_stay_quick(start_spaced):
    """Made in the store itself; the API and the start must not grow with them beyond what people would feel."""
    daemon = start_spaced()
    daemon.token()
    owner = daemon.ctl_json("user", "list")[0]["id"]
    daemon.stop()
    import sqlite3

    db = sqlite3.connect(daemon.state / "control" / "spaced.db")
    now = int(time.time() * 1000)
    db.executemany("INSERT INTO spaces (id, owner_id, name, label, stage, slot, created, modified)"
                   " VALUES (?, ?, ?, ?, 'NO_APP_FILE', ?, ?, ?)",
                   [(f"{i:024x}", owner, f"app{i}", f"alice-app{i}", i + 1, now + i, now + i) for i in range(1000)])
    db.commit()
    db.close()
    daemon.start()
    assert len(daemon.ctl_json("space", "list")) == 1000
    assert daemon.ctl_json("status")["spaces"] == 1000
    assert daemon.request("GET", "/").text.count('class="card"') == 1000
    assert "Nothing was pushed" in daemon.get("alice", "app999").text
    daemon.stop(signal.SIGINT)
