"""A proxy in front that is trusted: its word about visitors counts, everybody else's is replaced."""
import json
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from apps import app_files, static_files
from harness import BUILD, wait_for
from proxyraw import PATIENCE, App, Peer, bench, get  # noqa: F401 (bench is a fixture)

FRONT, STRANGER, INNER = "127.0.0.5", "127.0.0.1", "127.0.1.7"
TRUSTED = f"{FRONT} 127.0.1.0/24,2001:db8:ffff::/48"
VISITOR = "198.51.100.7"
FORWARDING = ("x-forwarded-for", "x-real-ip", "x-forwarded-proto", "x-forwarded-port", "forwarded")


def seen(app, proxy, source, *fields, host="a.test"):
    """What the app sees, of one more request."""
    before = len(app.requests)
    peer = proxy.connect(source)
    peer.send(get("/", *fields, host=host))
    assert peer.message().status == 200
    app.wait_requests(before + 1)
    return [app.requests[-1].get(name) for name in FORWARDING]


def test_what_the_app_sees(bench):
    app, proxy = bench(None, trusted=TRUSTED)
    port = str(proxy.port)

    def forwarded(who, proto):
        return f"for={who};host=\"a.test\";proto={proto}"

    assert seen(app, proxy, FRONT) == [FRONT, FRONT, "http", port, forwarded(FRONT, "http")]
    assert seen(app, proxy, FRONT, f"X-Forwarded-For: {VISITOR}", "X-Forwarded-Proto: https") == [
        VISITOR, VISITOR, "https", "443", forwarded(VISITOR, "https")]
    assert seen(app, proxy, FRONT, f"X-Forwarded-For: 203.0.113.9, {VISITOR}, {INNER}", "X-Forwarded-Proto: https, http") == [
        VISITOR, VISITOR, "https", "443", forwarded(VISITOR, "https")]
    assert seen(app, proxy, FRONT, "X-Forwarded-For: 203.0.113.9", f"X-Forwarded-For: {VISITOR}", "X-Forwarded-Proto: http") == [
        VISITOR, VISITOR, "http", "80", forwarded(VISITOR, "http")]
    assert seen(app, proxy, FRONT, "X-Forwarded-For: 2001:db8::7", "X-Forwarded-Proto: https", host="a.test:8443") == [
        "2001:db8::7", "2001:db8::7", "https", "8443", "for=\"[2001:db8::7]\";host=\"a.test:8443\";proto=https"]
    # What is said in other words is nobody's: not X-Real-IP, Forwarded, X-Forwarded-Host, X-Forwarded-Port.
    assert seen(app, proxy, FRONT, "Forwarded: for=203.0.113.9;proto=https", "X-Real-IP: 203.0.113.9",
                "X-Forwarded-Port: 1", "X-Forwarded-Host: b.test") == [FRONT, FRONT, "http", port, forwarded(FRONT, "http")]
    assert app.requests[-1].get("x-forwarded-host") == "a.test"
    # A stranger's word is replaced, as ever.
    assert seen(app, proxy, STRANGER, f"X-Forwarded-For: {VISITOR}", "X-Forwarded-Proto: https") == [
        STRANGER, STRANGER, "http", port, forwarded(STRANGER, "http")]


def test_nobody_is_trusted_unless_said(bench):
    app, proxy = bench(None)
    assert seen(app, proxy, FRONT, f"X-Forwarded-For: {VISITOR}", "X-Forwarded-Proto: https")[:3] == [FRONT, FRONT, "http"]


def test_visitors_of_one_connection(bench):
    """A front keeps its connections: each request is its own visitor's."""
    app, proxy = bench(None, "client_rate=1", trusted=TRUSTED)
    front = proxy.connect(FRONT)

    def ask(who):
        front.send(get("/", f"X-Forwarded-For: {who}"))
        return front.message()

    assert ask(VISITOR).status == 200
    wait_for("one too many", lambda: ask(VISITOR).status == 429, interval=0)
    assert ask("198.51.100.8").status == 200
    wait_for("one too many of his again", lambda: ask(VISITOR).status == 429, interval=0)
    own = proxy.connect(STRANGER)
    own.send(get("/", f"X-Forwarded-For: {VISITOR}"))
    assert own.message().status == 200


def test_connections_of_a_visitor(bench):
    """Those of the front are not counted, but each request under way is, as one of its visitor."""
    gate = threading.Event()

    def slow(peer, app):
        app.record(peer.message())
        assert gate.wait(PATIENCE)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    app, proxy = bench(slow, "per_client=3", "head_ms=600000", trusted=TRUSTED)
    peers = [proxy.connect(FRONT) for _ in range(8)]
    for peer in peers[:3]:
        peer.send(get("/", f"X-Forwarded-For: {VISITOR}"))
    app.wait_requests(3)
    peers[3].send(get("/", f"X-Forwarded-For: {VISITOR}"))
    refused = peers[3].message()
    assert refused.status == 429 and refused.get("retry-after") and refused.get("connection") != "close"
    for peer, who in zip(peers[4:7], ("198.51.100.8", "198.51.100.8", FRONT)):
        peer.send(get("/", f"X-Forwarded-For: {who}"))
    app.wait_requests(6)
    gate.set()
    assert [p.message().status for p in peers[:3] + peers[4:7]] == [200] * 6
    peers[3].send(get("/", f"X-Forwarded-For: {VISITOR}"))
    assert peers[3].message().status == 200


@pytest.mark.parametrize("wrong", ["10.0.0.1/8", "localhost", "10.0.0.0/8 ::1/129"])
def test_no_network(wrong, tmp_path):
    done = subprocess.run([BUILD / "proxy", "--listen", "127.0.0.1:0", "--routes", "x", "--trusted-proxy", wrong],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode == 2 and wrong in done.stderr
    done = subprocess.run([BUILD / "spaced", "--state", tmp_path, "--trusted-proxies", wrong], capture_output=True, text=True,
                          timeout=30)
    assert done.returncode == 2 and "trusted-proxies" in done.stderr


def test_a_daemon_behind_one(start_spaced, repo):
    spaced = start_spaced(trusted_proxies=TRUSTED, proxies=2)
    echo = app_files(body="json.dumps({k.lower(): v for k, v in self.headers.items()}).encode()")
    spaced.push_ok(repo(files=echo), "alice", "echo")
    spaced.push_ok(repo(files=static_files()), "alice", "site")

    def ask(source, name, path="/"):
        peer = Peer(socket.create_connection(("127.0.0.1", spaced.port), PATIENCE, source_address=(source, 0)))
        peer.send(get(path, f"X-Forwarded-For: {VISITOR}", "X-Forwarded-Proto: https", host=spaced.host("alice", name)))
        return peer.message()

    headers = json.loads(ask(FRONT, "echo").body)
    assert (headers["x-forwarded-for"], headers["x-forwarded-proto"]) == (VISITOR, "https")
    headers = json.loads(ask(STRANGER, "echo").body)
    assert (headers["x-forwarded-for"], headers["x-forwarded-proto"]) == (STRANGER, "http")
    assert ask(FRONT, "site", "/by-front").status == ask(STRANGER, "site", "/by-stranger").status == 404
    log = Path(spaced.state) / "access" / "access.log"

    def clients():
        text = log.read_text() if log.exists() else ""
        lines = [json.loads(line) for line in text[:text.rfind("\n") + 1].splitlines()]  # the last one may be half written
        return {line["path"]: line["client"] for line in lines if line.get("path", "").startswith("/by-")}

    assert wait_for("both in the access log", lambda: len(clients()) == 2 and clients()) == {
        "/by-front": VISITOR, "/by-stranger": STRANGER}
