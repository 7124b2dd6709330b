"""The stand-alone proxy over time: routes read again, time limits, limits per client and Space, an orderly end."""
import select
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from proxyraw import App, BUILD, PATIENCE, Proxy, bench, get, says  # noqa: F401 (bench is a fixture)


def test_routes_and_wildcards(tmp_path):
    one, two = App(), App()
    proxy = Proxy(tmp_path, {"a.test": f"127.0.0.1:{one.port}", "*.w.test": f"127.0.0.1:{two.port}"})
    try:
        for host, app in (("a.test", one), ("A.TEST", one), ("a.test.", one), ("a.test:81", one), ("x.w.test", two),
                          ("y.x.w.test", two)):
            before = len(app.requests)
            assert proxy.ask(get("/", host=host)).status == 200, host
            assert len(app.requests) == before + 1, host
        for host in ("w.test", "b.test", "xa.test", "a.test.x"):
            assert proxy.ask(get("/", host=host)).status == 404, host
    finally:
        proxy.close()


def test_hangup_reads_routes_again(bench):
    app, proxy = bench()
    other = App(says(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother"))
    kept = proxy.connect()
    kept.send(get("/"))
    assert kept.message().body == b"/"
    proxy.write({"b.test": f"127.0.0.1:{other.port}"})
    proxy.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + PATIENCE
    while proxy.ask(get("/", host="b.test")).status != 200:
        assert time.monotonic() < end
    assert proxy.ask(get("/")).status == 404
    kept.send(get("/", host="b.test"))
    assert kept.message().body == b"other", "open connections stay"
    proxy.file.write_text("this is no route\n")
    proxy.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + PATIENCE
    while "expected HOST" not in Path(proxy.log.name).read_text():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert proxy.ask(get("/", host="b.test")).status == 200, "a bad file changes nothing"


def test_request_in_flight_survives_a_route_change(bench):
    gate = threading.Event()

    def handler(peer, app):
        app.record(peer.message())
        assert gate.wait(PATIENCE)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold")

    app, proxy = bench(handler)
    peer = proxy.connect()
    peer.send(get("/"))
    app.wait_requests(1)
    proxy.write({"b.test": "127.0.0.1:1"})
    proxy.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + PATIENCE
    while proxy.ask(get("/", host="b.test")).status == 404:
        assert time.monotonic() < end
    assert proxy.ask(get("/")).status == 404
    gate.set()
    assert peer.message().body == b"old"


def test_refused_upstream(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    proxy = Proxy(tmp_path, {"a.test": f"127.0.0.1:{port}"})
    try:
        peer = proxy.connect()
        for accept, kind in (("text/html,*/*", "text/html"), ("application/json", "application/json"), ("*/*", "text/plain")):
            peer.send(get("/", f"Accept: {accept}"))
            m = peer.message()
            assert m.status == 502 and m.get("content-type").startswith(kind)
        peer.send(get("/", method="HEAD"))
        m = peer.message(head_only=True)
        assert m.status == 502 and int(m.get("content-length")) > 0
        peer.send(get("/", "Accept: text/html", "X-Request-Id: <script>"))
        m = peer.message()
        assert b"<script>" not in m.body and b'<html lang="en">' in m.body
    finally:
        proxy.close()


def test_slow_head(bench):
    _, proxy = bench(None, "head_ms=400")
    peer = proxy.connect()
    peer.send(b"GET / HTTP/1.1\r\nHost: a")
    m = peer.message()
    assert m.status == 408 and m.get("connection") == "close"
    silent = proxy.connect()
    assert silent.rest() == b"", "one that says nothing is closed without a word"


def test_slow_head_drip_is_no_excuse(bench):
    _, proxy = bench(None, "head_ms=500")
    peer = proxy.connect()
    try:
        for b in get("/", "X: " + "y" * 2000):
            peer.send(bytes([b]))
            if select.select([peer.sock], [], [], 0.05)[0]:
                break
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert peer.message().status == 408


def test_idle_timeout(bench):
    _, proxy = bench(None, "idle_ms=300")
    peer = proxy.connect()
    peer.send(get("/"))
    assert peer.message().status == 200
    assert peer.closed()


def test_response_timeout(bench):
    def handler(peer, app):
        app.record(peer.message())
        peer.rest()

    _, proxy = bench(handler, "response_ms=300")
    assert proxy.ask(get("/")).status == 504


def test_body_stall(bench):
    _, proxy = bench(None, "stall_ms=300")
    assert proxy.ask(get("/", "Content-Length: 10", method="POST") + b"abc").status == 408


def test_per_client_limit(bench):
    _, proxy = bench(None, "per_client=3")

    def admitted():
        """A connection that is served; the one of wait_ready() or one just closed may still count for a moment."""
        end = time.monotonic() + PATIENCE
        while True:
            peer = proxy.connect()
            try:
                peer.send(get("/"))
                if peer.message().status == 200:
                    return peer
            except (EOFError, OSError):
                pass
            peer.close()
            assert time.monotonic() < end

    peers = [admitted() for _ in range(3)]
    m = proxy.connect().message()
    assert m.status == 429 and m.get("retry-after")
    peers[0].close()
    admitted()


def test_per_space_limit(bench):
    gate = threading.Event()

    def handler(peer, app):
        app.record(peer.message())
        gate.wait(PATIENCE)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    app, proxy = bench(handler, "per_space=2")
    held = [proxy.connect() for _ in range(2)]
    for p in held:
        p.send(get("/"))
    app.wait_requests(2)
    m = proxy.ask(get("/"))
    assert m.status == 503 and m.get("retry-after")
    gate.set()
    for p in held:
        assert p.message().body == b"ok"


def test_end_waits_for_requests(bench):
    gate = threading.Event()

    def handler(peer, app):
        app.record(peer.message())
        assert gate.wait(PATIENCE)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    app, proxy = bench(handler)
    idle = proxy.connect()
    idle.send(get("/", host="none.test"))
    assert idle.message().status == 404
    peer = proxy.connect()
    peer.send(get("/"))
    app.wait_requests(1)
    proxy.process.terminate()
    assert idle.closed()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port))
    gate.set()
    m = peer.message()
    assert m.body == b"ok" and m.get("connection") == "close"
    assert proxy.process.wait(PATIENCE) == 0


def test_workers(bench):
    app, proxy = bench(workers=2)
    for _ in range(40):
        assert proxy.ask(get("/")).status == 200
    children = Path(f"/proc/{proxy.process.pid}/task/{proxy.process.pid}/children").read_text().split()
    assert len(children) == 2


def test_help_and_usage():
    run = subprocess.run([BUILD / "proxy", "--help"], capture_output=True, text=True)
    assert run.returncode == 0 and "--routes FILE" in run.stdout
    assert subprocess.run([BUILD / "proxy"], capture_output=True).returncode == 2
    assert subprocess.run([BUILD / "proxy", "--limit", "nonsense=1"], capture_output=True).returncode == 2
