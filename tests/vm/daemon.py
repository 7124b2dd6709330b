#!/usr/bin/env python3
"""A whole daemon on the VM's kernel: what tests/e2e proves in breadth, here once and with deadlines for an emulated CPU.
Called by tests/vm/inside; prints TAP-like lines and "N passed, N failed"."""
import contextlib
import json
import os
import pathlib
import signal
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]
sys.dont_write_bytecode = True
from apps import app_files, server  # noqa: E402
from harness import EXAMPLES, Repo, Spaced, app_processes, processes, wait_for  # noqa: E402
from steps import step, sum_up  # noqa: E402

SLOW = 180
ROOT = pathlib.Path("/sys/fs/cgroup")  # a tree per state folder: spaced-...

work = pathlib.Path(tempfile.mkdtemp())
daemon = Spaced(memory="128M", pids="48", cpus="1", startup_timeout="120s", build_timeout="300s")


def push(name, text, example=None, files=None, path="/"):
    out = daemon.push_ok(Repo(work / name, source=EXAMPLES / example if example else None, files=files), "alice", name,
                         timeout=600)
    page = daemon.get_ok("alice", name, path, timeout=SLOW)
    assert text in page.text, f"{page.text[:300]}\n{out}"


def memory():
    body = "b'up' if self.path == '/' else bytes(len(bytearray(os.urandom(1) * (512 << 20))))"
    push("memory", "up", files=app_files(body=body))
    try:
        answer = daemon.get("alice", "memory", "/eat", timeout=SLOW)
        assert answer.status in (502, 503), answer.status
    except ConnectionError:
        pass
    wait_for("the reason", lambda: "killed: used 128 MiB of 128 MiB" in daemon.log_path.read_text(), SLOW)
    assert daemon.get_ok("alice", "memory", timeout=SLOW).text == "up", "it is started again"


SPAWN = '''
def spawn():
    n = 0
    try:
        while n < 200:
            os.posix_spawnp("sleep", ["sleep", "100"], os.environ)
            n += 1
    except OSError:
        pass
    return str(n).encode()
'''


def pids():
    code = server(body="spawn() if self.path != '/' else b'up'").replace("KEEP = []", SPAWN)
    push("pids", "up", files={"Procfile": "web: python3 app.py\n", "app.py": code})
    started = int(daemon.get("alice", "pids", "/spawn", timeout=SLOW).text)
    assert 5 < started < 48, started


def group_of(name):
    paths = set()
    for pid in app_processes(f"alice/{name}"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            paths.add(pathlib.Path(f"/proc/{pid}/cgroup").read_text().strip())
    assert len(paths) == 1, paths
    return ROOT / paths.pop().removeprefix("0::/")


def limits_are_files():
    for g in map(group_of, ("hello", "plain", "memory", "pids")):
        read = lambda f: (g / f).read_text().strip()
        assert read("memory.max") == str(128 << 20), (g, read("memory.max"))
        assert read("pids.max") == "48" and read("cpu.max") == "100000 100000", g
        swap = g / "memory.swap.max"
        assert not swap.exists() or swap.read_text().strip() == "0", g
        assert read("memory.oom.group") == "0", "a child that grows too much ends alone; the monitor says so"


def identity(name="steady"):
    return json.loads(daemon.get_ok("alice", name, timeout=SLOW).text)["started"]


def adoption():
    files = app_files(body="json.dumps({'started': STARTED}).encode()")
    files["app.py"] = "import time\nSTARTED = time.time()\n" + files["app.py"]
    push("steady", "started", files=files)
    before = identity()
    assert daemon.stop(signal.SIGTERM, timeout=SLOW) == 0
    assert app_processes("alice/steady"), "the app was stopped too"
    daemon.start(timeout=SLOW)
    assert identity() == before, "it was started again"


def killed_daemon():
    before = identity()
    for pid in [daemon.process.pid, *sum(daemon.pids().values(), [])]:
        with contextlib.suppress(ProcessLookupError):  # it ends with the first
            os.kill(pid, signal.SIGKILL)
    daemon.process.wait()
    daemon.start(timeout=SLOW)
    assert identity() == before, "it was started again"


def asleep():
    """Frozen by its group, its memory in swap (tests/vm/inside makes some), and all there again at a request."""
    before = identity()
    daemon.options.update(freeze_after="2s", page_out_after="4s")
    daemon.stop(signal.SIGTERM, timeout=SLOW)
    daemon.start(timeout=SLOW)
    wait_for("it to be paged out", lambda: "paged out" in daemon.spacectl("space", "events", "alice/steady")[1], SLOW)
    group = group_of("steady")
    assert (group / "cgroup.freeze").read_text() == "1\n"
    assert int((group / "memory.swap.current").read_text()) > 1 << 20

    def awake():  # asked until we look before it sleeps again
        assert identity() == before
        return [(group / name).read_text() for name in ("cgroup.freeze", "memory.swap.max")] == ["0\n"] * 2

    wait_for("it to be thawed, and out of swap", awake, SLOW)
    daemon.options.update(freeze_after="0", page_out_after="0")
    daemon.stop(signal.SIGTERM, timeout=SLOW)
    daemon.start(timeout=SLOW)


def pause():
    before = identity()
    code, out, err = daemon.spacectl("space", "pause", "alice/steady")
    assert code == 0, out + err
    wait_for("the Space to be paused", lambda: daemon.stage("alice", "steady") == "PAUSED", SLOW)
    code, out, err = daemon.spacectl("space", "restart", "alice/steady")
    assert code == 0, out + err
    assert identity() >= before


def end():
    assert daemon.stop(signal.SIGINT, timeout=SLOW) in (0, 130)
    wait_for("no process of an app to be left", lambda: not processes("app.py"), SLOW)
    wait_for("no group to be left", lambda: not [*ROOT.glob("spaced*/app-*"), *ROOT.glob("spaced*/shell.*")], 30)


step("daemon: start", lambda: daemon.start(timeout=SLOW))
if daemon.process and daemon.process.poll() is None:
    step("daemon: push of examples/hello", lambda: push("hello", "pushed with git and running in its own sandbox", "hello"))
    step("daemon: push of examples/static", lambda: push("static", "Nothing runs behind this page", "static"))
    step("daemon: push of an app without requirements", lambda: push("plain", "plain", files=app_files("plain")))
    step("daemon: memory limit, its reason, and a new start", memory)
    step("daemon: pids limit", pids)
    step("daemon: limits in the groups", limits_are_files)
    step("daemon: SIGTERM: apps go on and are adopted", adoption)
    step("daemon: kill -9 of all roles: the same", killed_daemon)
    step("daemon: asleep: frozen, paged out, woken", asleep)
    step("daemon: pause and restart", pause)
    step("daemon: SIGINT: nothing is left", end)


def last_words():
    log = daemon.log_tail(60)
    if daemon.process and daemon.process.poll() is None:
        daemon.stop(signal.SIGINT, timeout=SLOW)
    return log


sum_up(last_words)
