"""The access log: what is in it for a daemon with a Space, who may read it; and the stand-alone program's, whose file is slow or full."""
import itertools
import json
import os
import re
import socket
import stat
import struct
import subprocess
import threading

import pytest

from apps import app_files, static_files
from harness import BUILD, reserved_port, wait_for
from proxyraw import App, Peer, get

SLOW = 'time.sleep(600 if self.path == "/slow" else 0) or b"hi"'  # what the app answers
TOKEN = "hf_" + "a" * 34


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def read(spaced, *args):
    return lines(spaced.spacectl("access-log", *args, check=True)[1])


def find(spaced, mark, *args):
    """The line of the request whose User-Agent is `mark`."""
    return wait_for(f"the line of {mark}", lambda: next((x for x in read(spaced, *args) if x.get("user_agent") == mark), None))


@pytest.fixture(scope="module")
def logged(spaced, tmp_path_factory):
    from harness import Repo

    spaced.push_ok(Repo(tmp_path_factory.mktemp("log") / "app", files=app_files(body=SLOW)), "alice", "logged")
    spaced.wait_stage("alice", "logged", "RUNNING")
    return "alice/logged"


def ask(spaced, path, mark, host=None, **headers):
    return spaced.request("GET", path, host=host or spaced.host("alice", "logged"), headers={"User-Agent": mark, **headers})


def test_a_request(spaced, logged):
    answer = ask(spaced, "/some/where?x=1", "one-request", **{"X-Request-Id": "my-id"})
    assert answer.status == 200
    line = find(spaced, "one-request")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert line["duration_ms"] >= line["upstream_ms"] >= 0 and line["bytes_in"] > 60 and line["bytes_out"] > 100
    for key in ("time", "duration_ms", "upstream_ms", "bytes_in", "bytes_out"):
        del line[key]
    assert line == {"space": "alice/logged", "host": spaced.host("alice", "logged"), "method": "GET", "path": "/some/where?x=1",
                    "protocol": "HTTP/1.1", "status": 200, "client": "127.0.0.1", "user_agent": "one-request",
                    "request_id": "my-id"}
    ask(spaced, "/", "no-id")
    assert re.fullmatch("[0-9a-f]{32}", find(spaced, "no-id")["request_id"])


def test_no_secret_is_in_the_file(spaced, logged):
    ask(spaced, f"/?__sign=geheim1&token=geheim2&q={TOKEN}", "secrets", Authorization=f"Bearer {TOKEN}", Cookie="a=geheim3")
    assert find(spaced, "secrets")["path"] == "/?__sign=***&token=***&q=hf_***"
    text = (spaced.state / "access" / "access.log").read_text()
    assert "geheim" not in text and TOKEN not in text


def test_no_line_is_forged(spaced, logged):
    forged = '"}\\n{"time":"x","space":"bob/other","status":200,\t"\u00ff'
    ask(spaced, "/%22%0a?%0d%0a\"{}\\", forged)
    found = wait_for("the line", lambda: [x for x in read(spaced) if "bob/other" in x.get("user_agent", "")])
    assert len(found) == 1 and found[0]["user_agent"] == forged and found[0]["path"] == "/%22%0a?%0d%0a\"{}\\"
    assert not [x for x in read(spaced) if x["space"] == "bob/other"]
    assert (spaced.state / "access" / "access.log").read_bytes().isascii()


def test_refusals_say_why(spaced, logged):
    assert ask(spaced, "/", "nobody-there", host="nobody.localhost").status == 404
    line = find(spaced, "nobody-there")
    assert (line["status"], line["refused"], line["space"]) == (404, "host", "")
    with socket.create_connection(("127.0.0.1", spaced.port)) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert s.recv(4096).startswith(b"HTTP/1.1 400 ")
    wait_for("the refusal", lambda: [x for x in read(spaced) if x.get("refused") == "malformed"
                                     and x["detail"] == "more than one Host" and x["status"] == 400 and x["client"] == "127.0.0.1"])


def test_who_may_read_it(spaced, logged, repo):
    spaced.push_ok(repo(files=static_files()), "bob", "else")
    spaced.wait_stage("bob", "else", "RUNNING")
    ask(spaced, "/", "of-alice")
    ask(spaced, "/", "of-bob", host=spaced.host("bob", "else"))
    assert find(spaced, "of-bob")["space"] == "bob/else"
    path = "/api/spaces/alice/logged/access-log"

    def status(user, where=path):
        headers = {"Authorization": f"Bearer {spaced.token(user)}"} if user else {}
        return spaced.request("GET", where, headers=headers).status

    assert [status(None), status("bob"), status("alice")] == [401, 403, 200]
    assert [status(None, "/api/admin/access-log"), status("alice", "/api/admin/access-log")] == [401, 403]
    own = wait_for("alice's line", lambda: (lambda x: x if any(y.get("user_agent") == "of-alice" for y in x) else None)(
        lines(spaced.request("GET", path, headers={"Authorization": f"Bearer {spaced.token('alice')}"}).text)))
    assert {x["space"] for x in own} == {"alice/logged"}
    assert {x["space"] for x in read(spaced, "bob/else")} == {"bob/else"}
    folder = os.stat(spaced.state / "access")
    assert stat.S_IMODE(folder.st_mode) == 0o700
    assert stat.S_IMODE(os.stat(spaced.state / "access" / "access.log").st_mode) == 0o600


def test_the_name_of_a_space_that_was_deleted(spaced, repo):
    """Whoever has it next does not read what was asked of the one before."""
    for mark in ("of-the-first", "of-the-second"):
        work = repo(files=static_files())
        wait_for("a push", lambda: spaced.push(work, "alice", "again").returncode == 0)  # not while it is deleted
        spaced.wait_stage("alice", "again", "RUNNING")
        ask(spaced, "/", mark, host=spaced.host("alice", "again"))
        assert find(spaced, mark)["space"] == "alice/again"
        assert {x["user_agent"] for x in read(spaced, "alice/again") if "user_agent" in x} == {mark}
        spaced.spacectl("space", "delete", "-y", "alice/again", check=True)


@pytest.mark.parametrize("what, places", [("access-log?follow=1", 16), ("logs/run", 256)])
def test_readers_do_not_shut_out_others(spaced, logged, repo, what, places):
    """One user has a quarter of the places; four of them have all but those of the admins."""
    users = ["alice", "bob", "carol", "dave", "erin"]
    names = dict.fromkeys(users, "reads") | {"alice": "logged"}
    followers = []

    def follow(user):
        peer = Peer(socket.create_connection(("127.0.0.1", spaced.port)))
        followers.append(peer)
        peer.send(f"GET /api/spaces/{user}/{names[user]}/{what} HTTP/1.1\r\nHost: {spaced.domain}\r\n"
                  f"Authorization: Bearer {spaced.token(user)}\r\n\r\n".encode())
        return peer.message(head_only=True).status

    for user in users[1:]:
        if spaced.spacectl("space", "show", f"{user}/{names[user]}")[0] != 0:
            spaced.push_ok(repo(files=app_files()), user, names[user])
    try:
        for user in users[:4]:
            assert {follow(user) for _ in range(places // 4)} == {200}
            assert follow(user) == 429
        assert follow("erin") == 503
        assert spaced.spacectl("access-log", "alice/logged")[0] == spaced.spacectl("space", "logs", "alice/logged")[0] == 0
    finally:
        for peer in followers:
            peer.close()


def test_the_daemon_ends_under_those_who_follow(start_spaced):
    """They are cut off, and nothing of theirs is touched after its end."""
    daemon = start_spaced()
    daemon.request("GET", "/healthz")
    follow = subprocess.Popen([BUILD / "spacectl", "--state", daemon.state, "access-log", "-f"], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert json.loads(follow.stdout.readline())["path"] == "/healthz"
    daemon.stop()
    follow.communicate(timeout=60)
    log = daemon.log_path.read_text()
    assert "ended" in log and "Sanitizer" not in log and "killed" not in log


def test_tail_and_follow(spaced, logged):
    peer = Peer(socket.create_connection(("127.0.0.1", spaced.port)))  # one connection, one proxy: their order is sure
    host = spaced.host("alice", "logged")
    for i in range(5):
        peer.send(get(f"/{i}", f"User-Agent: tail-{i}", host=host))
        assert peer.message().status == 200
    find(spaced, "tail-4")
    assert [x["user_agent"] for x in read(spaced, "-n", "2", "alice/logged")] == ["tail-3", "tail-4"]
    assert spaced.spacectl("access-log", "-n", "x")[0] == 2
    follow = subprocess.Popen([BUILD / "spacectl", "--state", spaced.state, "access-log", "-f", "-n", "1", "alice/logged"],
                              stdout=subprocess.PIPE, text=True)
    try:
        assert json.loads(follow.stdout.readline())["user_agent"] == "tail-4"
        peer.send(get("/", "User-Agent: of-nobody", host="nobody.localhost") + get("/", "User-Agent: followed", host=host))
        assert json.loads(follow.stdout.readline())["user_agent"] == "followed"
    finally:
        follow.kill()
        follow.wait()
        peer.close()


def test_what_ends_early(spaced, logged):
    def connections():
        return spaced.ctl_json("space", "show", logged)["spaced"]["live"]["connections"]

    wait_for("the end of others", lambda: connections() == 0)
    with socket.create_connection(("127.0.0.1", spaced.port)) as s:
        s.sendall(get("/slow", "User-Agent: left", host=spaced.host("alice", "logged")))
        wait_for("the request", connections)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset: it awaits no answer
    line = find(spaced, "left")
    assert (line["status"], line["aborted"], line["method"]) == (499, True, "GET")


def test_the_one_who_wakes_it(spaced, logged):
    assert spaced.spacectl("space", "sleep", logged)[0] == 0
    spaced.wait_stage("alice", "logged", "SLEEPING")
    assert ask(spaced, "/", "early-bird").status == 200
    line = find(spaced, "early-bird")
    assert line["woke"] is True and line["status"] == 200
    assert line["duration_ms"] >= line["held_ms"] > 0 and line["upstream_ms"] <= line["duration_ms"] - line["held_ms"]
    assert "held_ms" not in find(spaced, "one-request") and "woke" not in find(spaced, "one-request")


def test_control_may_die(spaced, logged):
    spaced.kill_role("control")
    wait_for("an answer", lambda: ask(spaced, "/", "after-death").status == 200)
    assert find(spaced, "after-death")["space"] == "alice/logged"


def test_rotation_and_sampling(start_spaced, repo):
    spaced = start_spaced(access_log_size="1M", access_log_sample="7", proxies="1")
    spaced.push_ok(repo(files=static_files()), "alice", "site")
    spaced.wait_stage("alice", "site", "RUNNING")
    peer = Peer(socket.create_connection(("127.0.0.1", spaced.port)))
    folder = spaced.state / "access"
    host = f"{spaced.host('alice', 'site')}:{spaced.port}"
    long = "x" * 1000

    marks = map(str, itertools.count())

    def turned_over():
        """Of a batch that finds room also where control does not take it, and that has been written then."""
        for _ in range(300):
            peer.send(get(f"/missing?{long}", "User-Agent: many", host=host) + get("/?good", "User-Agent: many", host=host))
            assert peer.message().status == 404 and peer.message().status == 200
        mark = f"end-of-{next(marks)}"
        peer.send(get("/missing", f"User-Agent: {mark}", host=host))
        assert peer.message().status == 404
        find(spaced, mark, "-n", "1000")
        return (folder / "access.log.1").exists()

    wait_for("a second file", turned_over, interval=0)
    first = (folder / "access.log.1").stat().st_ino
    wait_for("a third file", lambda: turned_over() and (folder / "access.log.1").stat().st_ino != first, interval=0)
    wait_for("its name", lambda: sorted(os.listdir(folder)) == ["access.log", "access.log.1"])
    assert all((folder / name).stat().st_size <= 512 * 1024 for name in os.listdir(folder))
    kept = [x for x in read(spaced) if x.get("user_agent") == "many"]
    bad = [x for x in kept if x["status"] == 404]
    good = [x for x in kept if x["status"] == 200]
    assert len(bad) > 300 and all("sample" not in x for x in bad)  # each one
    assert all(x["sample"] == 7 for x in good) and abs(len(good) - len(bad) / 7) <= 2
    assert [x["time"] for x in kept] == sorted(x["time"] for x in kept)


def test_none_is_kept(start_spaced, repo):
    spaced = start_spaced(access_log_size="0")
    spaced.push_ok(repo(files=static_files()), "alice", "site")
    assert spaced.get("alice", "site").status == 200
    assert spaced.spacectl("access-log")[0] == 1
    assert os.listdir(spaced.state / "access") == []


# --- the stand-alone program

class Alone:
    def __init__(self, tmp, log, *more):
        self.app = App()
        self.reserved = reserved_port()
        self.port = self.reserved.getsockname()[1]
        (tmp / "routes").write_text(f"a.test 127.0.0.1:{self.app.port}\n")
        self.process = subprocess.Popen([BUILD / "proxy", "--listen", f"127.0.0.1:{self.port}", "--routes", tmp / "routes",
                                         "--access-log", log, *more], stderr=subprocess.DEVNULL)
        wait_for("the proxy", self.listens)
        self.peer = Peer(socket.create_connection(("127.0.0.1", self.port)))

    def listens(self):
        assert self.process.poll() is None
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def ask(self, path="/", n=1):
        for _ in range(n):
            self.peer.send(get(path))
            assert self.peer.message().status == 200

    def close(self):
        self.process.terminate()
        try:
            assert self.process.wait(60) == 0
        finally:
            self.process.kill()
        self.reserved.close()
        self.app.close()


def test_a_slow_reader_holds_up_nobody(tmp_path):
    """A pipe that nobody empties: requests are answered all the same, lines are dropped, and the log says how many."""
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    alone = Alone(tmp_path, fifo)
    try:
        path = "/" + "x" * 1000
        sent = 3000
        alone.ask(path, sent)  # 3.6 MB of lines; the pipe and the proxy have room for less than one
        os.set_blocking(reader, True)
        got = bytearray()

        def drain():
            while piece := os.read(reader, 65536):
                got.extend(piece)

        thread = threading.Thread(target=drain, daemon=True)
        thread.start()
        wait_for("what had waited", lambda: got.endswith(b"}\n") and got.count(b"\n") > 300)
        alone.ask("/last")
        wait_for("the last line", lambda: b'"/last"' in got and got.endswith(b"}\n"))
        kept = lines(got.decode())
        dropped = [x["dropped"] for x in kept if "dropped" in x]
        assert len(dropped) == 1 and dropped[0] + len(kept) - 1 == sent + 1
    finally:
        alone.close()
        os.close(reader)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_slow_reader_holds_up_no_end(tmp_path, workers):
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    alone = Alone(tmp_path, fifo, "--workers", workers)
    try:
        alone.ask("/" + "x" * 1000, 500)
        alone.process.terminate()
        assert alone.process.wait(60) == 0
    finally:
        alone.close()
        os.close(reader)


def test_a_full_disk_holds_up_nobody(tmp_path):
    alone = Alone(tmp_path, "/dev/full")
    try:
        alone.ask("/" + "x" * 1000, 500)
    finally:
        alone.close()


def test_hangup_opens_it_anew(tmp_path):
    alone = Alone(tmp_path, tmp_path / "log")
    try:
        alone.ask("/before")
        wait_for("the line", lambda: "/before" in (tmp_path / "log").read_text())
        (tmp_path / "log").rename(tmp_path / "log.1")
        alone.process.send_signal(1)
        wait_for("a new file", (tmp_path / "log").exists)
        alone.ask("/after")
        wait_for("the line", lambda: "/after" in (tmp_path / "log").read_text())
        assert "/after" not in (tmp_path / "log.1").read_text()
        alone.ask("/end")
    finally:
        alone.close()
    assert "/end" in (tmp_path / "log").read_text()  # written at the end
