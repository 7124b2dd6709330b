"""Starting and ending: `make run`'s script, the command line, clear errors, install."""
import contextlib
import os
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from apps import static_files
from harness import BUILD, ROOT, free_port, wait_for


class Run:
    """scripts/run in the background, as `make run` starts it."""

    def __init__(self, port, state):
        self.process = subprocess.Popen(["scripts/run", "--port", str(port), "--state", str(state)], cwd=ROOT,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        start_new_session=True, env={**os.environ, "SPACED_BUILD": os.path.relpath(BUILD, ROOT)})
        self.lines = []
        threading.Thread(target=lambda: self.lines.extend(iter(self.process.stdout.readline, "")), daemon=True).start()

    @property
    def text(self):
        return "".join(self.lines)

    def ready(self):
        def up():
            assert self.process.poll() is None, self.text
            return "Ctrl-C stops it" in self.text
        wait_for("scripts/run to be ready", up, 60)
        return self

    def interrupt(self):
        """Ctrl-C on a terminal: the whole foreground group gets it."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(60)


def test_older_than_its_database(start_spaced):
    """Said once, and the end of it: no start could help."""
    daemon = start_spaced()
    daemon.stop()
    with contextlib.closing(sqlite3.connect(daemon.state / "control/spaced.db")) as db:
        known, = db.execute("PRAGMA user_version").fetchone()
        db.execute("PRAGMA user_version = 99")
    with open(daemon.home / "again.log", "w+") as log:
        process = subprocess.Popen([BUILD / "spaced", "--state", daemon.state, "--listen", f"127.0.0.1:{free_port()}"],
                                   stdout=log, stderr=log)
        try:
            assert process.wait(60) == 1
        finally:
            process.terminate()
            process.wait(60)
            with contextlib.closing(sqlite3.connect(daemon.state / "control/spaced.db")) as db:
                db.execute(f"PRAGMA user_version = {known}")
        log.seek(0)
        assert log.read().count("was used by a newer spaced") == 1


def test_make_run_twice(tmp_path):
    import http.client
    port, state = free_port(), tmp_path / "deep" / "state"

    def hello():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/api/hello", headers={"Host": f"alice-hello.localhost:{port}"})
        answer = connection.getresponse()
        return answer.status, answer.read()

    first = Run(port, state)
    try:
        first.ready()
        token = re.search(r"hf_\w{34}", first.text).group()
        assert f"http://alice-hello.localhost:{port}/" in first.text
        assert f"git push http://alice:{token}@localhost:{port}/spaces/alice/" in first.text
        assert "remote:" in first.text, "the example was pushed"
        kept = state / "alice.token"
        assert kept.read_text().strip() == token and stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert hello()[0] == 200
    finally:
        assert first.interrupt() == 0, first.text
    second = Run(port, state)
    try:
        second.ready()
        assert token in second.text and "remote:" not in second.text, second.text
        wait_for("the example", lambda: hello()[0] == 200)
    finally:
        assert second.interrupt() == 0, second.text


def test_state_below_a_private_home(tmp_path, start_spaced, repo):
    """./var of a checkout in a home folder that only its owner may enter: what `make run` meets on Ubuntu."""
    private = tmp_path / "home"
    private.mkdir(mode=0o700)
    daemon = start_spaced(state=private / "state")
    daemon.push_ok(repo(files=static_files("private home")), "alice", "site")
    assert daemon.get("alice", "site").text == "private home"
    before = daemon.pids("control")
    assert daemon.spacectl("upgrade")[0] == 0
    assert daemon.get_ok("alice", "site").text == "private home"
    wait_for("another control", lambda: (now := daemon.pids("control")) and not set(now) & set(before))
    mounts = Path(f"/proc/{daemon.process.pid}/mountinfo").read_text().splitlines()
    assert len([m for m in mounts if m.split()[4] == "/run/spaced"]) == 1


def run(*args, **kw):
    return subprocess.run([str(BUILD / "spaced"), *map(str, args)], capture_output=True, text=True, timeout=60, **kw)


def test_help_names_every_option():
    shown = run("--help")
    assert shown.returncode == 0
    config = run("--print-config")
    assert config.returncode == 0
    for key in re.findall(r"^#?\s*([a-z][a-z-]+) =", config.stdout, re.M):
        assert f"--{key}" in shown.stdout, key
    for option in ("--state", "--listen", "--domain", "--config", "--memory"):
        assert option in shown.stdout


@pytest.mark.parametrize("program", ["spaced", "spacectl", "sandbox", "proxy"])
def test_version(program):
    done = subprocess.run([BUILD / program, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{program} {(ROOT / 'VERSION').read_text().strip()}\n"


def test_config_file(tmp_path, start_spaced):
    config = tmp_path / "spaced.conf"
    config.write_text("# mine\nmemory = 64M\nlog-level = debug\n")
    daemon = start_spaced(config=config)
    assert daemon.healthy()
    config.write_text("memmory = 64M\n")
    bad = run("--config", config, "--state", tmp_path / "s")
    assert bad.returncode != 0 and "memmory" in bad.stderr and "spaced.conf" in bad.stderr


def test_port_of_one_that_was_killed(start_spaced):
    """Its roles have the port a moment longer than it lives: the next one waits for it."""
    with socket.socket() as role:
        role.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        role.bind(("127.0.0.1", 0))
        role.listen()
        threading.Timer(0.7, role.close).start()
        assert start_spaced(port=role.getsockname()[1]).healthy()


LOCK_HOLDER = """
import fcntl, os, sys
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
os.pwrite(lock, b"%d\\n" % os.getpid(), 0)
if os.fork() == 0:
    print("held", flush=True)
    sys.stdin.read()
"""


def test_lock_of_one_that_was_killed(tmp_path, start_spaced):
    """The role that it was just starting has its lock a moment longer than it lives: the next one waits for that."""
    state = tmp_path / "state"
    state.mkdir()
    parent = subprocess.Popen([sys.executable, "-c", LOCK_HOLDER, str(state / "lock")], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    assert parent.stdout.readline() == b"held\n" and parent.wait() == 0
    threading.Timer(2, parent.stdin.close).start()
    assert start_spaced(state=state).healthy()


def test_errors_say_what_to_do(tmp_path, spaced):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        bad = run("--state", tmp_path / "a", "--listen", f"127.0.0.1:{port}")
        assert bad.returncode != 0 and str(port) in bad.stderr
    bad = run("--state", "/proc/nope", "--listen", f"127.0.0.1:{free_port()}")
    assert bad.returncode != 0 and "/proc/nope" in bad.stderr
    bad = run("--no-such-option")
    assert bad.returncode == 2 and "--no-such-option" in bad.stderr
    bad = run("--memory", "lots")
    assert bad.returncode != 0 and "lots" in bad.stderr
    bad = run("--state", spaced.state, "--listen", f"127.0.0.1:{free_port()}")
    assert bad.returncode != 0 and f"in use by another spaced (process {spaced.process.pid})" in bad.stderr
    nobody = subprocess.run([str(BUILD / "spacectl"), "--state", str(tmp_path / "none"), "status"], capture_output=True, text=True)
    assert nobody.returncode == 1 and nobody.stderr


def test_spacectl_is_for_those_who_may(spaced):
    """Another user of the machine is refused by the socket."""
    if os.getuid() != 0:
        pytest.skip("needs root to become somebody else")

    def other(*arguments):  # by a relative path: not everybody finds the way to a clone below /root
        return subprocess.run([f"./{os.path.relpath(BUILD, ROOT)}/spacectl", *arguments], cwd=ROOT, user=65534, group=65534,
                              extra_groups=[], capture_output=True, text=True)
    assert other("--version").returncode == 0
    assert other("--state", str(spaced.state), "user", "add", "mallory").returncode != 0
    assert spaced.spacectl("token", "add", "mallory")[0] != 0


def test_install_and_remove(tmp_path):
    subprocess.run(["scripts/install", "--prefix", "/opt/spaced", "--destdir", str(tmp_path)], cwd=ROOT, check=True,
                   capture_output=True)
    unit = (tmp_path / "etc/systemd/system/spaced.service").read_text()
    assert "ExecStart=/opt/spaced/bin/spaced" in unit and "@PREFIX@" not in unit
    assert subprocess.run([tmp_path / "opt/spaced/bin/spaced", "--version"], capture_output=True).returncode == 0
    config = tmp_path / "etc/spaced/spaced.conf"
    config.write_text("# mine\n")
    subprocess.run(["scripts/install", "--prefix", "/opt/spaced", "--destdir", str(tmp_path)], cwd=ROOT, check=True,
                   capture_output=True)
    assert config.read_text() == "# mine\n"
    subprocess.run(["scripts/install", "--remove", "--prefix", "/opt/spaced", "--destdir", str(tmp_path)], cwd=ROOT, check=True,
                   capture_output=True)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [config]


def test_units_are_sound(tmp_path):
    """As systemd reads them; the socket's address is that of the example configuration, or it would not be taken."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze on this machine")
    subprocess.run(["scripts/install", "--prefix", "/opt/spaced", "--destdir", str(tmp_path)], cwd=ROOT, check=True,
                   capture_output=True)
    units = sorted((tmp_path / "etc/systemd/system").iterdir())
    assert [u.name for u in units] == ["spaced.service", "spaced.socket"]
    for unit in units:
        unit.write_text(unit.read_text().replace("/opt/spaced", f"{tmp_path}/opt/spaced"))
    done = subprocess.run(["systemd-analyze", "verify", *map(str, units)], capture_output=True, text=True)
    assert done.returncode == 0 and "spaced" not in done.stderr, done.stderr
    listen = re.search(r"^listen = (.*)$", (tmp_path / "etc/spaced/spaced.conf").read_text(), re.M).group(1)
    assert f"ListenStream={listen}\n" in units[1].read_text()


def test_setup_ends_where_sudo_is_interrupted(tmp_path):
    """sudo that asks for a password takes Ctrl-C for itself, and fails: no reason to ask for the next step."""
    asked = tmp_path / "asked"
    for name, text in {
            "id": "echo 1000",
            "dpkg-query": "exit 1",
            "sudo": f"[ \"$1\" != true ] || exit 0\ntrap 'exit 1' INT\necho \"$@\" >>{asked}\nwhile :; do sleep 0.1; done"}.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    with open(tmp_path / "out", "w") as out:
        process = subprocess.Popen(["scripts/setup"], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                   start_new_session=True, env=environment)
    try:
        wait_for("sudo to ask", lambda: asked.exists() and "apt-get" in asked.read_text())
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130, (tmp_path / "out").read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert len(asked.read_text().splitlines()) == 1
