"""Upgrades of the daemon: between versions, to programs that are broken, twice, with a stop behind; what must be as before."""
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from apps import app_files
from harness import BUILD, ROOT, Repo, Spaced, app_processes, wait_for
from proxyraw import Peer
from test_access import cookie
from test_handover import APP, SERVE, Crowd, deploy, said, settled, upgrade


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    """Its program is a copy, which can be exchanged."""
    folder = tmp_path_factory.mktemp("bin")
    folder.chmod(0o755)
    shutil.copy(BUILD / "spaced", folder / "spaced")
    d = Spaced(program=folder / "spaced", proxies=2, freeze_after="1s")
    try:
        d.start()
        deploy(d, tmp_path_factory.mktemp("repos"))
        d.spacectl("space", "sleep", "alice/steady", "never", check=True)
        yield d
    finally:
        d.close()


def listening(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def exchange(daemon, program):
    """What is installed from now on."""
    program.chmod(0o755)
    program.rename(daemon.program)


def test_upgrade_between_versions(daemon, tmp_path):
    """There and back, since both know the database."""
    good = (BUILD / "spaced").read_bytes()
    version = (ROOT / "VERSION").read_text().strip()
    other = re.sub(r"\d", "9", version)
    with Crowd(daemon) as crowd:
        for program, after, before in ((good.replace(version.encode(), other.encode()), other, version), (good, version, other)):
            (tmp_path / "next").write_bytes(program)
            exchange(daemon, tmp_path / "next")
            done = daemon.log_path.read_text().count(SERVE)
            assert daemon.spacectl("upgrade")[1] == f"version {after} runs (before: {before})\n"
            said(daemon, SERVE, done + 1)
            crowd.more()
    assert len(crowd.started) == 1
    settled(daemon)


def test_upgrade_to_what_ends_after_its_check(start_spaced, repo, tmp_path):
    """There is no way back then, but apps run on, and a start serves them again."""
    shutil.copy(BUILD / "spaced", tmp_path / "spaced")
    daemon = start_spaced(program=tmp_path / "spaced")
    daemon.push_ok(repo(files={**app_files(), "app.py": APP}), "alice", "steady")
    started = daemon.get_ok("alice", "steady").body
    (tmp_path / "bad").write_text(f'#!/bin/sh\ncase "$*" in *--check*) exec {BUILD}/spaced "$@";; esac\nexit 3\n')
    exchange(daemon, tmp_path / "bad")
    daemon.process.send_signal(signal.SIGUSR2)
    assert daemon.process.wait(60) == 3
    shutil.copy(BUILD / "spaced", tmp_path / "good")
    exchange(daemon, tmp_path / "good")
    wait_for("its proxies to end", lambda: not listening(daemon.port), 60)
    daemon.start(timeout=60)
    assert daemon.get_ok("alice", "steady").body == started


def owners_of(daemon, kind, name):
    """Inodes of the files in memory of that name that the processes of a role have mapped."""
    return {line.split()[4] for pid in daemon.pids(kind) for line in Path(f"/proc/{pid}/maps").read_text().splitlines()
            if f"memfd:{name}" in line}


def test_what_is_as_before(daemon, tmp_path):
    """Several instances, one that is frozen, who may enter, and how much who has asked."""
    daemon.push_ok(Repo(tmp_path / "doze", files={**app_files(), "app.py": APP}), "alice", "doze")
    dozes = daemon.get_ok("alice", "doze").body
    daemon.spacectl("space", "scale", "alice/steady", "2", check=True)
    ask = lambda: daemon.get("alice", "steady").body  # noqa: E731
    both = wait_for("both instances", lambda: len(found := {ask() for _ in range(8)}) == 2 and found, 60)
    daemon.wait_stage("alice", "doze", "SLEEPING", 60)
    pids = sorted(app_processes("alice/doze")), sorted(app_processes("alice/steady"))
    crumb, rates = cookie(daemon, "hidden"), owners_of(daemon, "proxy", "spaced-rates")
    events = daemon.ctl_json("space", "events", "alice/doze")
    assert len(rates) == 1
    for _ in range(2):
        upgrade(daemon)
        settled(daemon)
        assert daemon.stage("alice", "doze") == "SLEEPING" and daemon.ctl_json("space", "events", "alice/doze") == events
        assert {ask() for _ in range(20)} == both
        assert (sorted(app_processes("alice/doze")), sorted(app_processes("alice/steady"))) == pids
        assert daemon.get("alice", "hidden", headers={"Cookie": crumb}).body == b"mine"
        assert daemon.get("alice", "hidden", headers={"Cookie": crumb[:-1]}).status == 401
        assert owners_of(daemon, "proxy", "spaced-rates") == rates
    assert daemon.get("alice", "doze", timeout=60).body == dozes
    daemon.spacectl("space", "scale", "alice/steady", "1", check=True)


def follow(daemon, path, *fields):
    """A request to alice/steady whose answer has begun."""
    peer = Peer(socket.create_connection(("127.0.0.1", daemon.port)))
    peer.sock.settimeout(120)
    peer.send("\r\n".join([f"GET {path} HTTP/1.1", f"Host: {daemon.host('alice', 'steady')}", *fields, "", ""]).encode())
    assert peer.message(head_only=True).status in (101, 200)
    return peer


def echoes(daemon):
    return follow(daemon, "/ws", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")


def test_two_upgrades_and_a_stop(daemon):
    """The second one leaves what is in flight since before the first its time; a stop, ten seconds."""
    first, download = echoes(daemon), follow(daemon, "/slow100")
    upgrade(daemon)
    second = echoes(daemon)
    upgrade(daemon)
    assert len(daemon.pids("proxy")) >= 4
    for peer in first, second:
        peer.send(b"still here")
        assert peer.exactly(10) == b"still here"
    assert download.exactly(100_000).endswith(b"099," * 250)
    last = follow(daemon, "/slow20")
    upgrade(daemon)
    daemon.process.send_signal(signal.SIGTERM)
    assert last.exactly(20_000).endswith(b"019," * 250)
    assert first.closed() and second.closed()
    assert daemon.process.wait(60) == 0
    daemon.start(timeout=60)


COUNTS = """
import itertools, os, threading, time
def count():
    for i in itertools.count():
        print("line", i, flush=True)
        time.sleep(0.01)
threading.Thread(target=count, daemon=True).start()
""" + APP


def numbers(text):
    return [int(line.split()[1]) for line in text.split("\n")[:-1] if line.startswith("line ")]


def without_gaps(found):
    assert found == list(range(found[0], found[0] + len(found))), [(a, b) for a, b in zip(found, found[1:]) if b != a + 1]


def events_of(daemon, last, upto, others=False):
    """Server-sent events as a browser's EventSource reads them: from behind the last one on. Until the number or the end.
    `others`: also those without a number, with -1."""
    peer = Peer(socket.create_connection(("127.0.0.1", daemon.port)))
    peer.sock.settimeout(120)
    peer.send("\r\n".join(["GET /api/spaces/alice/counts/logs/run HTTP/1.1", f"Host: {daemon.domain}",
                           f"Authorization: Bearer {daemon.token()}", "Accept: text/event-stream", "Connection: close",
                           *([f"Last-Event-ID: {last}"] if last else []), "", ""]).encode())
    assert peer.message(head_only=True).status == 200
    try:
        while True:
            event = peer.until(b"\n\n").decode()
            m = re.search(r'id: (.*)\ndata: (?:.*"line (\d+)")?', event)
            if m and (m[2] or others):
                n = int(m[2] or -1)
                yield m[1], n
                if n >= upto:
                    return
    except (EOFError, ConnectionError):
        pass


def test_followers_of_a_log_go_on(daemon, tmp_path):
    """They are cut off with the control that they followed, and miss and repeat no line of it at the next one."""
    daemon.push_ok(Repo(tmp_path / "counts", files={**app_files(), "app.py": COUNTS}), "alice", "counts")
    daemon.get_ok("alice", "counts")
    daemon.spacectl("space", "sleep", "alice/counts", "never", check=True)  # frozen it would not count
    out = tmp_path / "out"
    with out.open("wb") as to:
        spacectl = subprocess.Popen([BUILD / "spacectl", "--state", daemon.state, "space", "logs", "-f", "--tail", "2",
                                     "alice/counts"], stdout=to, stderr=subprocess.STDOUT)
    seen, last = [], None
    for end in "upgrade", "upgrade", "restart":
        before = len(numbers(out.read_text()))
        for last, n in events_of(daemon, last, seen[-1] + 50 if seen else 50):
            seen.append(n)
        wait_for("more lines", lambda b=before: len(numbers(out.read_text())) > b + 20, 60)
        stream = events_of(daemon, last, 10 ** 9)
        last, n = next(stream)
        seen.append(n)
        upgrade(daemon) if end == "upgrade" else daemon.restart(timeout=60)
        for last, n in stream:
            seen.append(n)
    for last, n in events_of(daemon, last, seen[-1] + 50):
        seen.append(n)
    assert seen[0] == 0
    without_gaps(seen)
    wait_for("spacectl to have them", lambda: numbers(out.read_text())[-1] > seen[-1], 60)
    assert spacectl.poll() is None
    daemon.spacectl("space", "pause", "alice/counts", check=True)
    assert spacectl.wait(60) == 0
    without_gaps(numbers(out.read_text()))
    # A browser comes again after the end, too: it gets what it has not of the run before, then the run of now.
    daemon.spacectl("space", "restart", "alice/counts", check=True)
    daemon.get_ok("alice", "counts")
    before, found = last.split(":")[0], []

    def goes_on():
        nonlocal last
        for last, n in events_of(daemon, last, 10 ** 9, others=True):
            if n >= 0:
                (seen if last.startswith(before + ":") else found).append(n)
            if n == 5 and found:
                break
        return found

    wait_for("the run of now", goes_on, 60)
    without_gaps(seen)
    assert found == list(range(6))


def test_a_command_in_an_app_ends_with_a_word(daemon):
    done = subprocess.Popen([BUILD / "spacectl", "--state", daemon.state, "exec", "alice/steady", "--", "sh", "-c",
                             "echo begun; exec sleep 1000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.stdout.readline() == "begun\n"
    upgrade(daemon)
    _, err = done.communicate(timeout=60)
    assert done.returncode == 125 and "the daemon" in err, err


def test_the_service_manager_is_told(start_spaced, tmp_path, monkeypatch):
    """When visitors are served, again after an upgrade, and of the end; no role hears of it."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(60)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    daemon = start_spaced(proxies=2)
    assert manager.recv(100) == b"READY=1" and daemon.healthy()
    upgrade(daemon)
    assert manager.recv(100) == b"READY=1"
    for pid in sum(settled(daemon).values(), []):
        assert b"NOTIFY_SOCKET" not in Path(f"/proc/{pid}/environ").read_bytes()
    daemon.stop()
    assert manager.recv(100) == b"STOPPING=1"
