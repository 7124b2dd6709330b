"""The stand-alone proxy over time: routes read again, time limits, limits per client and Space, an orderly end."""
import contextlib
import os
import pwd
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from harness import reserved_port
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


def test_the_routes_file_may_be_a_symlink(bench, tmp_path):
    """As of what is switched from one version to the next by renaming."""
    app, proxy = bench()
    (tmp_path / "v2").write_text(f"b.test 127.0.0.1:{app.port}\n")
    (tmp_path / "current").symlink_to("v2")
    (tmp_path / "current").rename(proxy.file)
    proxy.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + PATIENCE
    while proxy.ask(get("/", host="b.test")).status != 200:
        assert time.monotonic() < end


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
    nobody = reserved_port()
    proxy = Proxy(tmp_path, {"a.test": f"127.0.0.1:{nobody.getsockname()[1]}"})
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
        nobody.close()


def begun(proxy, ms):
    """A connection that has begun a head within the time for it."""
    end = time.monotonic() + PATIENCE
    while True:
        before = time.monotonic()
        peer = proxy.connect()
        with contextlib.suppress(OSError):
            peer.send(b"GET / HTTP/1.1\r\nHost: a.test\r\n")
            if time.monotonic() < before + ms / 1000:
                return peer
        assert time.monotonic() < end


def test_slow_head(bench):
    _, proxy = bench(None, "head_ms=400")
    peer = begun(proxy, 400)
    m = peer.message()
    assert m.status == 408 and m.get("connection") == "close"
    silent = proxy.connect()
    assert silent.rest() == b"", "one that says nothing is closed without a word"


def test_slow_head_drip_is_no_excuse(bench):
    _, proxy = bench(None, "head_ms=500")
    peer = begun(proxy, 500)
    try:
        while not select.select([peer.sock], [], [], 0.05)[0]:
            peer.send(b"X")
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


def admitted(proxy):
    """A connection that is served; one just closed may still count for a moment."""
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


def test_per_client_limit(bench):
    _, proxy = bench(None, "per_client=3")
    peers = [admitted(proxy) for _ in range(3)]
    m = proxy.connect().message()
    assert m.status == 429 and m.get("retry-after")
    peers[0].close()
    admitted(proxy)


def test_who_is_refused_takes_no_place_of_others(bench):
    """One address has all that it may have, and goes on to connect without ever closing: others find room."""
    _, proxy = bench(None, "per_client=3", "connections=8")
    mine = [admitted(proxy) for _ in range(3)]
    for _ in range(20):
        peer = proxy.connect()
        try:
            peer.send(get("/"))
            assert peer.message().status == 429
        except (ConnectionResetError, BrokenPipeError):
            pass  # there is no room to wait for a request that comes after the refusal
    other = proxy.connect("127.0.0.2")
    other.send(get("/"))
    assert other.message().status == 200
    assert mine


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


def test_full_queue_of_a_unix_socket(tmp_path):
    """connect(2) refuses at once what would have to wait there: the visitor is told to come again."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen(0)
        proxy = Proxy(tmp_path, {"a.test": f"unix:{tmp_path}/socket"})
        try:
            waiting = [proxy.connect() for _ in range(3)]
            for peer in waiting:
                peer.send(get("/"))
            refused = select.select([peer.sock for peer in waiting], [], [], PATIENCE)[0][0]
            m = next(peer for peer in waiting if peer.sock is refused).message()
            assert m.status == 503 and m.get("retry-after")
        finally:
            listener.close()  # nobody is waited for
            proxy.close()


def test_end_waits_for_requests(bench):
    gate = threading.Event()

    def handler(peer, app):
        app.record(peer.message())
        assert gate.wait(PATIENCE)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    app, proxy = bench(handler, "drain_ms=600000")
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


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGQUIT, signal.SIGSEGV])
def test_a_worker_that_is_gone_has_a_successor(bench, signum):
    """However it went: its socket takes its part of the visitors all the time."""
    app, proxy = bench(workers=2)

    def workers():
        return Path(f"/proc/{proxy.process.pid}/task/{proxy.process.pid}/children").read_text().split()
    end = time.monotonic() + PATIENCE
    while len(first := workers()) < 2:
        assert time.monotonic() < end
    os.kill(int(first[0]), signum)
    while first[0] in (now := workers()) or len(now) < 2:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert first[1] in workers()
    for _ in range(40):
        assert proxy.ask(get("/")).status == 200


def test_workers_that_do_not_live_are_not_many(bench):
    _, proxy = bench(workers=2)
    seen = set()
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        for pid in Path(f"/proc/{proxy.process.pid}/task/{proxy.process.pid}/children").read_text().split():
            seen.add(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    assert len(seen) < 40
    assert proxy.ask(get("/")).status == 200


@pytest.mark.parametrize("to", ["logs/other", "elsewhere/other"])
def test_no_file_is_written_but_the_log(tmp_path, to):
    """A log that has become a symlink, as somebody would have it who has taken over a worker."""
    for folder in ("logs", "elsewhere"):
        (tmp_path / folder).mkdir()
    app = App()
    proxy = Proxy(tmp_path, {"a.test": f"127.0.0.1:{app.port}"}, more=("--access-log", tmp_path / "logs" / "log"))
    try:
        assert proxy.ask(get("/")).status == 200
        (tmp_path / "logs" / "link").symlink_to(tmp_path / to)
        (tmp_path / "logs" / "link").rename(tmp_path / "logs" / "log")
        proxy.write({"b.test": f"127.0.0.1:{app.port}"})
        proxy.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + PATIENCE
        while proxy.ask(get("/", host="b.test")).status != 200:  # the log is opened anew in the same call
            assert time.monotonic() < end
        assert (tmp_path / to).exists() == to.startswith("logs")
    finally:
        proxy.close()
        app.close()


def test_a_log_that_cannot_be_opened(tmp_path):
    """Nor silently lost, when whose proxy it is may not write what log rotation has made."""
    app = App()
    log = tmp_path / "log"
    proxy = Proxy(tmp_path, {"a.test": f"127.0.0.1:{app.port}"}, more=("--access-log", log))

    def lines():
        old = tmp_path / "log.1"
        return old.read_text().count("\n") if old.exists() else 0
    try:
        assert proxy.ask(get("/")).status == 200  # so it is there
        log.rename(tmp_path / "log.1")
        log.mkdir()
        proxy.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + PATIENCE
        while f"open the access log {log}: Is a directory" not in Path(proxy.log.name).read_text():
            assert time.monotonic() < end
            time.sleep(0.01)
        assert proxy.ask(get("/")).status == 200
        while lines() != 2:
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        proxy.close()
        app.close()
    done = subprocess.run([BUILD / "proxy", "--listen", f"127.0.0.1:{proxy.port}", "--routes", proxy.file, "--access-log", log],
                          capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1 and f"open the access log {log}: Is a directory" in done.stderr, done.stderr


def status_of(pid, *names):
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return [["Z"] for _ in names]  # it has ended, and been waited for
    return [re.search(rf"^{name}:(.*)$", status, re.M)[1].split() for name in names]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_root_serves_as_somebody_else(tmp_path):
    nobody = pwd.getpwnam("nobody")
    open_to_all = Path(tempfile.mkdtemp(dir="/var/tmp"))  # unlike tmp_path
    open_to_all.chmod(0o755)
    app = App()
    proxy = Proxy(open_to_all, {"a.test": f"127.0.0.1:{app.port}"}, workers=2, more=("--user", "nobody"))
    try:
        assert proxy.ask(get("/")).status == 200
        end = time.monotonic() + PATIENCE
        want = [[str(nobody.pw_uid)] * 4, [str(nobody.pw_gid)] * 4, []]
        while True:  # the one that has not answered may be just beginning
            workers = [int(p) for p in Path(f"/proc/{proxy.process.pid}/task/{proxy.process.pid}/children").read_text().split()]
            now = [status_of(pid, "Uid", "Gid", "Groups") for pid in workers]
            if now == [want] * 2:
                break
            assert time.monotonic() < end, now
            time.sleep(0.01)
        proxy.process.kill()
        end = time.monotonic() + PATIENCE
        while any(status_of(pid, "State")[0][0] != "Z" for pid in workers):  # none outlives it
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        proxy.process.kill()
        proxy.process.wait()
        app.close()
        shutil.rmtree(open_to_all)


def test_help_and_usage():
    run = subprocess.run([BUILD / "proxy", "--help"], capture_output=True, text=True)
    assert run.returncode == 0 and "--routes FILE" in run.stdout
    assert subprocess.run([BUILD / "proxy"], capture_output=True).returncode == 2
    assert subprocess.run([BUILD / "proxy", "--limit", "nonsense=1"], capture_output=True).returncode == 2
