#!/usr/bin/env python3
"""The units of packaging/ below a real systemd: installed, started, reloaded, restarted, upgraded, with visitors there all
the time. Called by tests/vm/run --systemd; prints TAP-like lines and "N passed, N failed, N skipped"."""
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import types

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]
sys.dont_write_bytecode = True
os.environ.setdefault("SPACED_SLOW", "4")
from apps import app_files, static_files  # noqa: E402
from harness import EXAMPLES, ROOT, Repo, Spaced, app_processes, wait_for  # noqa: E402
from steps import step, sum_up  # noqa: E402
from test_handover import APP, Crowd  # noqa: E402

CONFIG = pathlib.Path("/etc/spaced/spaced.conf")
VISITORS = ("fresh", "kept", "site", "apex", "post", "download", "upload")
SERVE = "the new proxies serve"


def run(*argv, status=0):
    done = subprocess.run(argv, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    assert done.returncode == status, f"{' '.join(argv)}: status {done.returncode}\n{done.stdout}"
    return done.stdout


def ask(what, unit="spaced.service"):
    return run("systemctl", "show", "--value", "-p", what, unit).strip()


def journal(*args):
    run("journalctl", "--sync")
    return run("journalctl", "--no-pager", "-o", "cat", "-u", "spaced", *args)


class Service(Spaced):
    """The daemon as systemd runs it."""

    def __init__(self):
        super().__init__(state="/var/lib/spaced", port=80)
        self.url = f"http://{self.domain}"

    @property
    def process(self):
        return types.SimpleNamespace(pid=int(ask("MainPID")))

    @process.setter
    def process(self, value):
        pass

    def log_tail(self, lines=40):
        return journal("-n", str(lines))


daemon = Service()
work = pathlib.Path(tempfile.mkdtemp())
started = set()


def installed():
    run("make", "-o", "all", "install")
    assert {"spaced", "spacectl"} <= {p.name for p in pathlib.Path("/usr/local/bin").iterdir()}
    run("systemd-analyze", "verify", "spaced.service", "spaced.socket")


def starts():
    run("systemctl", "enable", "--now", "spaced.socket")
    run("systemctl", "start", "spaced")
    assert daemon.request("GET", "/healthz", timeout=60).status == 200
    assert [ask("ActiveState", u) for u in ("spaced.service", "spaced.socket")] == ["active"] * 2
    assert "listening on 0.0.0.0:80" in journal()


def pushes():
    out = daemon.push_ok(Repo(work / "hello", source=EXAMPLES / "hello"), "alice", "hello")
    assert "pushed with git and running in its own sandbox" in daemon.get_ok("alice", "hello").text, out
    daemon.push_ok(Repo(work / "steady", files={**app_files(), "app.py": APP}), "alice", "steady")
    daemon.push_ok(Repo(work / "site", files=static_files("files")), "alice", "site")
    assert daemon.get_ok("alice", "site").text == "files"
    started.add(daemon.get_ok("alice", "steady").body)


def among_visitors(act, *more):
    with Crowd(daemon, VISITORS + more) as crowd:
        act()
        crowd.more()
    assert crowd.started == started, "the app was started again"


def reload():
    CONFIG.write_text(CONFIG.read_text() + "memory = 300M\n")
    before = daemon.pids()
    among_visitors(lambda: run("systemctl", "reload", "spaced"), "socket")
    wait_for("the reload", lambda: "reload: changed: memory" in journal())
    assert daemon.pids() == before


def reload_with_a_mistake():
    good = CONFIG.read_text()
    CONFIG.write_text(good + "memory = much\n")
    run("systemctl", "reload", "spaced", status=1)
    CONFIG.write_text(good)
    assert ask("ActiveState") == "active" and "memory = `much`" in journal("-n", "20")


def upgrade():
    pid, before = ask("MainPID"), daemon.pids()

    def exchange():
        daemon.spacectl("upgrade", check=True)
        wait_for("the new proxies", lambda: SERVE in journal())

    among_visitors(exchange, "socket")
    assert ask("MainPID") == pid and ask("ActiveState") == "active"
    assert not set(before["control"]) & set(daemon.pids("control"))


def restart():
    pid = ask("MainPID")
    among_visitors(lambda: run("systemctl", "restart", "spaced"))
    assert ask("MainPID") != pid and ask("NRestarts") == "0"


def dies():
    """And systemd starts it again."""
    os.kill(int(ask("MainPID")), signal.SIGKILL)
    wait_for("a new one", lambda: ask("NRestarts") == "1" and ask("ActiveState") == "active")
    assert {daemon.get_ok("alice", "steady").body} == started


def systemd_itself_changes():
    """Its own reload and exec keep the groups of apps as they are, with their limits."""
    group = pathlib.Path("/sys/fs/cgroup") / pathlib.Path(
        f"/proc/{app_processes('alice/steady')[0]}/cgroup").read_text().strip().removeprefix("0::/")
    before = [(group / f).read_text() for f in ("memory.max", "cpu.max", "pids.max")]
    run("systemctl", "daemon-reload")
    run("systemctl", "daemon-reexec")
    assert [(group / f).read_text() for f in ("memory.max", "cpu.max", "pids.max")] == before
    assert "max" not in before[0] and {daemon.get_ok("alice", "steady").body} == started


def cannot_start():
    """Who starts it is told so."""
    run("systemctl", "stop", "spaced.socket", "spaced")
    good = CONFIG.read_text()
    CONFIG.write_text(good + "nonsense = 1\n")
    run("systemctl", "start", "spaced", status=1)
    CONFIG.write_text(good)
    assert "no option `nonsense`" in journal("-n", "20")
    run("systemctl", "stop", "spaced")


def comes_back():
    assert app_processes("alice/steady"), "a stop of the service has ended the apps"
    run("systemctl", "start", "spaced.socket", "spaced")
    assert {daemon.get_ok("alice", "steady").body} == started


def removed():
    run("make", "uninstall")
    assert not pathlib.Path("/usr/local/bin/spaced").exists() and CONFIG.exists()
    assert ask("ActiveState") == "inactive" and not pathlib.Path("/etc/systemd/system/spaced.service").exists()


os.chdir(ROOT)
step("systemd: make install, and units without a mistake", installed)
step("systemd: start, with the socket held", starts)
step("systemd: pushes", pushes)
step("systemd: reload among visitors", reload)
step("systemd: reload with a mistake in the file", reload_with_a_mistake)
step("systemd: upgrade among visitors", upgrade)
step("systemd: restart among visitors", restart)
step("systemd: its own reload", systemd_itself_changes)
step("systemd: kill -9 of the daemon", dies)
step("systemd: what cannot start says so", cannot_start)
step("systemd: stopped and started, apps go on", comes_back)
step("systemd: make uninstall", removed)
sum_up(lambda: daemon.log_tail(60))
