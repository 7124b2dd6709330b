"""Persistent storage at /data, and the limits that an app feels while it runs: told in events, in its log, in figures."""
import contextlib
import os
import sqlite3
import subprocess
from pathlib import Path

import pytest

from apps import server
from harness import Repo, Spaced, wait_for

CODE = '''
import subprocess, threading
def act(path):
    what, _, name = path.strip("/").partition("/")
    try:
        if what == "write":
            with open("/data/" + name, "w") as f:
                f.write(name); f.flush(); os.fsync(f.fileno())
            return b"written"
        if what == "read":
            return open("/data/" + name, "rb").read()
        if what == "fill":
            n = 0
            with open("/data/fill", "wb") as f:
                while True:
                    f.write(bytes(1 << 20)); f.flush(); os.fsync(f.fileno()); n += 1
        if what == "empty":
            os.unlink("/data/fill")
            return b"emptied"
        if what == "size":
            s = os.statvfs("/data"); return str(s.f_blocks * s.f_frsize >> 20).encode()
        if what == "child":
            return str(subprocess.run([sys.executable, "-c", "x = bytearray(1 << 30)"]).returncode).encode()
        if what == "spin":
            for _ in range(2):
                subprocess.Popen([sys.executable, "-c", "while True: pass"])
            return b"spinning"
    except OSError as e:
        return e.strerror.encode()
    return json.dumps({k: os.environ.get(k) for k in ("HF_HOME", "PERSISTENT_STORAGE_ENABLED", "HOSTNAME")}
                      | {"there": os.path.isdir("/data")}).encode()
'''


@pytest.fixture(scope="module", autouse=True)
def held_back(tmp_path_factory):
    """A daemon whose app wants more than it may, from the first test on: only after a minute of that it is told."""
    made = Spaced(cpus="0.1")  # so little that other load on this host does not take it
    try:
        made.start()
        push(made, lambda files: Repo(tmp_path_factory.mktemp("busy") / "app", files=files), "busy")
        assert text(made, "busy", "/spin") == "spinning"
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def daemon():
    made = Spaced(memory="128M", cpus="0.5", data_max="100M")
    try:
        made.start()
        yield made
    finally:
        made.close()


def push(daemon, repo, name, more=""):
    code = server(body="act(self.path)").replace("KEEP = []", CODE + more)
    daemon.push_ok(repo(files={"Procfile": "web: python3 app.py\n", "app.py": code}), "alice", name, "+main:main")


def text(daemon, name, path="/"):
    return daemon.get_ok("alice", name, path).text


def storage(daemon, name, *words, code=0):
    got, out, err = daemon.spacectl("space", "storage", f"alice/{name}", *words)
    assert got == code, (out, err)
    return out + err


def events(daemon, name):
    return [(e["kind"], e["text"]) for e in daemon.ctl_json("space", "events", f"alice/{name}")]


def wait_generation(daemon, name, before):
    """A newer instance serves."""
    def newer():
        shown = daemon.show("alice", name)["spaced"]
        return shown["generation"] > before and shown.get("live") and daemon.stage("alice", name) == "RUNNING"
    wait_for("the next instance", newer, 60)


def generation(daemon, name):
    return daemon.show("alice", name)["spaced"]["generation"]


def volumes(daemon):
    return sorted(p.name for p in (daemon.state / "volumes").glob("data-*"))


def test_storage(daemon, repo):
    push(daemon, repo, "keeper")
    before = daemon.get_ok("alice", "keeper").json()
    assert before["there"] is False and before["PERSISTENT_STORAGE_ENABLED"] is None
    assert text(daemon, "keeper", "/write/a") == "No such file or directory"
    assert daemon.runtime("alice", "keeper")["storage"] is None

    assert "At most" in storage(daemon, "keeper", "1G", code=1)
    assert "At least" in storage(daemon, "keeper", "1M", code=1)
    g = generation(daemon, "keeper")
    storage(daemon, "keeper", "32M")
    wait_generation(daemon, "keeper", g)
    inside = daemon.get_ok("alice", "keeper").json()
    assert inside["there"] and inside["PERSISTENT_STORAGE_ENABLED"] == "true" and inside["HF_HOME"] == "/data/.huggingface"
    assert daemon.runtime("alice", "keeper")["storage"] == "small"
    assert text(daemon, "keeper", "/write/a") == "written"

    # a restart, a deploy (both run for a moment), a new daemon
    g = generation(daemon, "keeper")
    daemon.spacectl("space", "restart", "alice/keeper", check=True)
    wait_generation(daemon, "keeper", g)
    assert text(daemon, "keeper", "/read/a") == "a"
    push(daemon, repo, "keeper")
    assert text(daemon, "keeper", "/read/a") == "a"
    daemon.restart()
    assert text(daemon, "keeper", "/read/a") == "a"
    assert text(daemon, "keeper", "/write/b") == "written"
    g = generation(daemon, "keeper")
    daemon.spacectl("space", "restart", "alice/keeper", check=True)
    wait_generation(daemon, "keeper", g)
    assert text(daemon, "keeper", "/read/b") == "b"

    # full: told to the app, in the events, in the log, in the figures
    assert text(daemon, "keeper", "/fill") == "No space left on device"
    wait_for("the event", lambda: any(k == "limit: data" and t.startswith("/data: full") for k, t in events(daemon, "keeper")))
    assert "[spaced] /data: full" in daemon.logs("alice", "keeper")
    data = daemon.show("alice", "keeper")["usage"]["data"]
    assert data["used"] > 0.97 * data["size"] and 20 << 20 < data["size"] <= 32 << 20
    assert "Data" in daemon.spacectl("space", "show", "alice/keeper", check=True)[1]

    # larger, and never smaller
    old = int(text(daemon, "keeper", "/size"))
    storage(daemon, "keeper", "96M")
    wait_for("more room", lambda: int(text(daemon, "keeper", "/size")) > old + 40, 60)
    assert text(daemon, "keeper", "/read/a") == "a"
    assert "smaller" in storage(daemon, "keeper", "32M", code=1)

    # off: only when it is meant; then nothing comes back
    assert "nothing was deleted" in storage(daemon, "keeper", "off", code=1)
    assert len(volumes(daemon)) == 1
    daemon.wait_stage("alice", "keeper", "RUNNING")
    g = generation(daemon, "keeper")
    storage(daemon, "keeper", "off", "-y")
    wait_generation(daemon, "keeper", g)
    assert daemon.get_ok("alice", "keeper").json()["there"] is False
    wait_for("the volume to be gone", lambda: not volumes(daemon), 90)
    g = generation(daemon, "keeper")
    storage(daemon, "keeper", "32M")
    wait_generation(daemon, "keeper", g)
    assert text(daemon, "keeper", "/read/a") == "No such file or directory"
    daemon.spacectl("space", "delete", "alice/keeper", check=True)
    wait_for("the volume to go with its Space", lambda: not volumes(daemon), 60)


def test_what_was_deleted_has_no_way_back(start_spaced, repo):
    """Control dies when storage was switched off, and the instance that had it still lives when it is switched on again."""
    daemon = start_spaced()
    push(daemon, repo, "stubborn", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n")
    g = generation(daemon, "stubborn")
    storage(daemon, "stubborn", "32M")
    wait_generation(daemon, "stubborn", g)
    assert text(daemon, "stubborn", "/write/a") == "written"
    old = volumes(daemon)
    g = generation(daemon, "stubborn")
    storage(daemon, "stubborn", "off", "-y")
    daemon.kill_role("control")
    wait_for("control", daemon.healthy)
    storage(daemon, "stubborn", "32M")
    wait_generation(daemon, "stubborn", g)

    def fresh():
        return text(daemon, "stubborn", "/read/a") == "No such file or directory"
    wait_for("an instance with the new storage", fresh, 60)
    assert daemon.get_ok("alice", "stubborn").json()["PERSISTENT_STORAGE_ENABLED"] == "true"
    assert text(daemon, "stubborn", "/write/b") == "written"
    wait_for("the old volume to be gone", lambda: len(volumes(daemon)) == 1 and volumes(daemon) != old, 90)
    assert not any(k.endswith("failed") for k, _ in events(daemon, "stubborn"))
    g = generation(daemon, "stubborn")
    daemon.spacectl("space", "restart", "alice/stubborn", check=True)
    wait_generation(daemon, "stubborn", g)
    assert text(daemon, "stubborn", "/read/a") == "No such file or directory"
    assert text(daemon, "stubborn", "/read/b") == "b"


def test_restarts_whatever_the_size(daemon, repo):
    """A size of which ext4 leaves the rest away, and a growth that a loss of power cut short: neither keeps the next instance
    from starting beside the one that serves."""
    push(daemon, repo, "odd")
    g = generation(daemon, "odd")
    storage(daemon, "odd", "95.5M")
    wait_generation(daemon, "odd", g)
    assert text(daemon, "odd", "/write/a") == "written"
    with contextlib.closing(sqlite3.connect(daemon.state / "control/spaced.db")) as db:
        db.execute("UPDATE spaces SET storage = ? WHERE name = 'odd'", (200 << 20,))
        db.commit()
    for _ in range(2):
        g = generation(daemon, "odd")
        daemon.spacectl("space", "restart", "alice/odd", check=True)
        wait_generation(daemon, "odd", g)
        assert text(daemon, "odd", "/read/a") == "a"
    assert not any(k == "start failed" for k, _ in events(daemon, "odd"))
    daemon.spacectl("space", "delete", "alice/odd", check=True)
    wait_for("the volume to go with its Space", lambda: not volumes(daemon), 60)


def test_stock_client(daemon, repo, venv):
    """huggingface_hub's methods, unmodified; a tier that is larger than the host gives is refused with a reason."""
    push(daemon, repo, "tiers")
    script = f"""
import warnings; warnings.simplefilter("ignore")
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
api = HfApi(endpoint="{daemon.url}", token="{daemon.token()}")
try:
    api.request_space_storage("alice/tiers", "large")
except HfHubHTTPError as e:
    print("refused", "data-max" in str(e))
try:
    api.delete_space_storage("alice/tiers")
except ValueError:
    print("none")
print(api.get_space_runtime("alice/tiers").storage)
"""
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    done = subprocess.run([venv("huggingface_hub==0.36.0"), "-c", script], text=True, capture_output=True, timeout=120,
                          env=env | {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(daemon.home / "hf")})
    assert done.stdout.split("\n")[:3] == ["refused True", "none", "None"], done.stdout + done.stderr


def test_tier(start_spaced, repo, venv):
    """small is 20 GB, as on Hugging Face: a sparse file, so that it costs nothing here."""
    daemon = start_spaced()
    push(daemon, repo, "small")
    g = generation(daemon, "small")
    script = f"""
import warnings; warnings.simplefilter("ignore")
from huggingface_hub import HfApi
api = HfApi(endpoint="{daemon.url}", token="{daemon.token()}")
print(api.request_space_storage("alice/small", "small").storage)
"""
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    done = subprocess.run([venv("huggingface_hub==0.36.0"), "-c", script], text=True, capture_output=True, timeout=120,
                          env=env | {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(daemon.home / "hf")})
    assert done.stdout.strip() == "small", done.stdout + done.stderr
    wait_generation(daemon, "small", g)
    assert 19 << 10 <= int(text(daemon, "small", "/size")) <= 20 << 10
    assert sum(f.stat().st_blocks * 512 for f in (daemon.state / "volumes").glob("data-*")) < 1 << 30


def test_a_child_is_killed_and_the_app_goes_on(daemon, repo):
    push(daemon, repo, "mother")
    assert text(daemon, "mother", "/child") == "-9"
    g = generation(daemon, "mother")
    told = "memory: a process was killed: the app used 128 MiB of 128 MiB"
    wait_for("the event", lambda: ("limit: memory", told) in events(daemon, "mother"))
    assert f"[spaced] {told}" in daemon.logs("alice", "mother")
    assert generation(daemon, "mother") == g and daemon.stage("alice", "mother") == "RUNNING"
    memory = daemon.show("alice", "mother")["usage"]["memory"]
    assert memory["limit"] == 128 << 20 and memory["killed"] == 1 and memory["peak"] > 120 << 20
    # its group is called after the sandbox that was made ahead of it: an admin is told where it is, its owner is not
    group = daemon.show("alice", "mother")["usage"]["cgroup"]
    assert any(Path("/sys/fs/cgroup", tree, group.lstrip("/")).is_dir() for tree in ("", "unified", "memory")), group
    assert f"cgroup {group}" in daemon.log_path.read_text()
    mine = daemon.request("GET", "/api/spaces/alice/mother/usage", headers={"Authorization": f"Bearer {daemon.token()}"})
    assert mine.status == 200 and b"memory" in mine.body and b"cgroup" not in mine.body


@pytest.mark.deadline(400)
def test_throttling_is_told(held_back):
    wait_for("a minute of it", lambda: any(k == "limit: cpu" for k, _ in events(held_back, "busy")), 180)
    told = next(t for k, t in events(held_back, "busy") if k == "limit: cpu")
    assert told.startswith("CPU: held back ") and told.endswith(" % of the last minute at 0.1 CPUs"), told
    assert held_back.show("alice", "busy")["usage"]["cpu"]["throttledUsec"] > 10_000_000
