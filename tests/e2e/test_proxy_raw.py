"""The proxy over raw sockets: what it refuses, what it passes on and how. The app behind it is a plain socket server whose
every byte the test decides, so nothing between them is polite. Runs the stand-alone program build/proxy."""
import asyncio
import base64
import hashlib
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

BUILD = Path(os.environ.get("SPACED_BUILD", "build"))
PATIENCE = 20  # seconds: a bound on waiting, never a measure


class Peer:
    """A connection, read in pieces of HTTP."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(PATIENCE)
        self.buf = bytearray()

    def fill(self):
        data = self.sock.recv(1 << 18)
        self.buf += data
        return bool(data)

    def take(self, n):
        data = bytes(self.buf[:n])
        del self.buf[:n]
        return data

    def until(self, mark):
        while mark not in self.buf:
            if not self.fill():
                raise EOFError(bytes(self.buf))
        return self.take(self.buf.index(mark) + len(mark))

    def exactly(self, n):
        while len(self.buf) < n:
            if not self.fill():
                raise EOFError(bytes(self.buf[:200]))
        return self.take(n)

    def rest(self):
        try:
            while self.fill():
                pass
        except ConnectionResetError:
            pass
        return self.take(len(self.buf))

    def chunked(self):
        body, sizes = b"", []
        while True:
            n = int(self.until(b"\r\n"), 16)
            sizes.append(n)
            body += self.exactly(n)
            assert self.exactly(2) == b"\r\n"
            if n == 0:
                return body, sizes

    def message(self, head_only=False):
        head = self.until(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        m = Message(lines[0], [tuple(x.split(": ", 1)) for x in lines[1:] if x])
        if head_only or (m.status and (m.status < 200 or m.status in (204, 304))):
            return m
        if m.get("transfer-encoding") == "chunked":
            m.body, m.sizes = self.chunked()
        elif m.get("content-length"):
            m.body = self.exactly(int(m.get("content-length")))
        elif m.status:
            m.body = self.rest()
        return m

    def send(self, data):
        self.sock.sendall(data)

    def closed(self):
        """True once the other side has closed, with nothing unread."""
        return self.rest() == b""

    def close(self):
        self.sock.close()


class Message:
    def __init__(self, line, fields):
        self.line = line
        self.fields = fields
        self.body = b""
        self.status = int(line.split()[1]) if line.startswith("HTTP/") else 0

    def all(self, name):
        return [v for k, v in self.fields if k.lower() == name]

    def get(self, name):
        values = self.all(name)
        assert len(values) < 2, (name, values)
        return values[0] if values else None


class App:
    """The upstream: `handler(peer, app)` is called in a thread per connection."""

    def __init__(self, handler=None):
        self.handler = handler or App.serve
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.connections = 0
        self.requests = []
        self.errors = []
        self.changed = threading.Condition()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.run, args=(sock,), daemon=True).start()

    def run(self, sock):
        peer = Peer(sock)
        try:
            self.handler(peer, self)
        except (EOFError, OSError) as e:
            self.errors.append(e)
        finally:
            sock.close()

    def record(self, message):
        with self.changed:
            self.requests.append(message)
            self.changed.notify_all()
        return message

    def wait_requests(self, n):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.requests) >= n, PATIENCE), "the app saw no request"

    def serve(self, peer):
        """The default handler: answers each request with its own body or its path."""

    @staticmethod
    def echo(peer, app):
        while True:
            m = app.record(peer.message())
            body = m.body or m.line.split()[1].encode()
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
            peer.send(head if m.line.startswith("HEAD") else head + body)

    def close(self):
        self.listener.close()


App.serve = App.echo


def says(data, wait=True):
    """A handler that answers each request with the same bytes."""

    def handler(peer, app):
        while True:
            app.record(peer.message())
            peer.send(data)

    def once(peer, app):
        app.record(peer.message())
        peer.send(data)

    return handler if wait else once


class Proxy:
    def __init__(self, tmp, routes, *limits, workers=1):
        with socket.create_server(("127.0.0.1", 0)) as s:
            self.port = s.getsockname()[1]
        self.file = tmp / "routes"
        self.write(routes)
        self.log = open(tmp / "proxy.log", "ab")
        args = [str(BUILD / "proxy"), "--listen", f"127.0.0.1:{self.port}", "--routes", str(self.file)]
        args += [a for limit in limits for a in ("--limit", limit)]
        if workers > 1:
            args += ["--workers", str(workers)]
        self.process = subprocess.Popen(args, stderr=self.log)
        self.open = []
        self.wait_ready()

    def write(self, routes):
        tmp = self.file.with_suffix(".new")
        tmp.write_text("".join(f"{host} {to}\n" for host, to in routes.items()))
        tmp.rename(self.file)

    def wait_ready(self):
        end = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except ConnectionRefusedError:
                assert self.process.poll() is None, "the proxy did not start"
                assert time.monotonic() < end
                time.sleep(0.01)

    def connect(self):
        peer = Peer(socket.create_connection(("127.0.0.1", self.port), PATIENCE))
        self.open.append(peer)
        return peer

    def ask(self, data, **kw):
        peer = self.connect()
        peer.send(data)
        return peer.message(**kw)

    def memory(self, what="VmRSS"):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{what}:\s+(\d+) kB", status).group(1))

    def close(self):
        for peer in self.open:
            peer.close()
        self.process.terminate()
        try:
            assert self.process.wait(PATIENCE) == 0
        finally:
            self.process.kill()
            self.log.close()


@pytest.fixture
def bench(tmp_path):
    """bench(handler, *limits) -> (app, proxy): an app behind a proxy, for host `a.test`."""
    made = []

    def make(handler=None, *limits, **kw):
        app = App(handler)
        proxy = Proxy(tmp_path, {"a.test": f"127.0.0.1:{app.port}"}, *limits, **kw)
        made.extend([proxy, app])
        return app, proxy

    yield make
    for thing in made:
        thing.close()


def get(path="/", *fields, host="a.test", method="GET", version="1.1"):
    lines = [f"{method} {path} HTTP/{version}", f"Host: {host}", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


H = b"Host: a.test\r\n"

# Each of these is refused with the status, the connection is closed, and the app sees nothing at all.
REFUSED = {
    "CL.TE": (400, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"),
    "TE.CL": (400, b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n1\r\nG\r\n0\r\n\r\n"),
    "TE obscured": (400, b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: xchunked\r\n\r\n"),
    "TE tab": (400, b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding:\x0bchunked\r\n\r\n"),
    "TE space before colon": (400, b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding : chunked\r\n\r\n"),
    "TE twice": (400, b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "TE identity": (400, b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: identity\r\n\r\n"),
    "TE gzip, chunked": (400, b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
    "TE in 1.0": (400, b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n"),
    "TE folded": (400, b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding:\r\n chunked\r\n\r\n"),
    "CL twice": (400, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    "CL list": (400, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5, 5\r\n\r\nhello"),
    "CL plus": (400, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: +5\r\n\r\nhello"),
    "CL minus": (400, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: -5\r\n\r\nhello"),
    "CL hex": (400, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 0x5\r\n\r\nhello"),
    "CL empty": (400, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: \r\n\r\n"),
    "CL huge": (400, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 99999999999999999999\r\n\r\n"),
    "bare LF": (400, b"GET / HTTP/1.1\nHost: a.test\n\n"),
    "bare LF in a field": (400, b"GET / HTTP/1.1\r\n" + H + b"X: a\nTransfer-Encoding: chunked\r\n\r\n"),
    "bare CR": (400, b"GET / HTTP/1.1\r\n" + H + b"X:\rTransfer-Encoding: chunked\r\n\r\n"),
    "NUL": (400, b"GET / HTTP/1.1\r\n" + H + b"X: a\0b\r\n\r\n"),
    "folded": (400, b"GET / HTTP/1.1\r\n" + H + b"X: a\r\n b\r\n\r\n"),
    "empty name": (400, b"GET / HTTP/1.1\r\n" + H + b": a\r\n\r\n"),
    "no Host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two Hosts": (400, b"GET / HTTP/1.1\r\n" + H + H + b"\r\n"),
    "userinfo": (400, b"GET / HTTP/1.1\r\nHost: x@a.test\r\n\r\n"),
    "absolute disagrees": (400, b"GET http://b.test/ HTTP/1.1\r\n" + H + b"\r\n"),
    "two spaces": (400, b"GET  / HTTP/1.1\r\n" + H + b"\r\n"),
    "HTTP/0.9": (400, b"GET /\r\n\r\n"),
    "HTTP/1.2": (505, b"GET / HTTP/1.2\r\n" + H + b"\r\n"),
    "HTTP/2 preface": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "CONNECT": (405, b"CONNECT a.test:80 HTTP/1.1\r\n" + H + b"\r\n"),
    "TRACE": (405, b"TRACE / HTTP/1.1\r\n" + H + b"\r\n"),
    "unknown method": (501, b"BREW / HTTP/1.1\r\n" + H + b"\r\n"),
    "Connection: Host": (400, b"GET / HTTP/1.1\r\n" + H + b"Connection: close, Host\r\n\r\n"),
    "Connection: Cookie": (400, b"GET / HTTP/1.1\r\n" + H + b"Connection: Cookie\r\n\r\n"),
    "Connection: X-Forwarded-For": (400, b"GET / HTTP/1.1\r\n" + H + b"Connection: X-Forwarded-For\r\n\r\n"),
    "Expect other": (417, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 1\r\nExpect: 200-ok\r\n\r\n"),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "long URL": (414, b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + H + b"\r\n"),
    "many fields": (431, b"GET / HTTP/1.1\r\n" + H + b"A: b\r\n" * 150 + b"\r\n"),
    "long head": (431, b"GET / HTTP/1.1\r\n" + H + b"A: " + b"b" * 40000 + b"\r\n\r\n"),
}


@pytest.fixture(scope="module")
def refuser(tmp_path_factory):
    app = App()
    proxy = Proxy(tmp_path_factory.mktemp("refuser"), {"a.test": f"127.0.0.1:{app.port}"})
    yield app, proxy
    proxy.close()
    app.close()


@pytest.mark.parametrize("name", REFUSED)
def test_refused(refuser, name):
    app, proxy = refuser
    status, data = REFUSED[name]
    before = len(app.requests)
    peer = proxy.connect()
    peer.send(data)
    m = peer.message()
    assert m.status == status, (m.line, m.body)
    assert m.get("connection") == "close"
    assert peer.closed()
    assert len(app.requests) == before, "the app was reached"


def test_not_refused(refuser):
    """The positive control: requests of the same shape without the flaw pass."""
    _, proxy = refuser
    for data in (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\nhello",
                 b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                 b"GET http://a.test/ HTTP/1.1\r\n" + H + b"X:a\r\nY:\t b \r\nZ:\r\n\r\n",
                 b"GET /" + b"a" * 8000 + b" HTTP/1.1\r\n" + H + b"\r\n",
                 b"GET / HTTP/1.1\r\n" + H + b"A: b\r\n" * 99 + b"\r\n",
                 b"GET / HTTP/1.1\r\n" + H + b"A: " + b"b" * 30000 + b"\r\n\r\n"):
        assert proxy.ask(data).status == 200, data[:200]


def test_plain(bench):
    app, proxy = bench()
    m = proxy.ask(get("/x?y=%20"))
    assert (m.status, m.body) == (200, b"/x?y=%20")
    assert m.get("connection") is None and m.get("date") and m.get("x-request-id")
    r = app.requests[0]
    assert r.line == "GET /x?y=%20 HTTP/1.1"
    assert r.get("host") == "a.test"


def test_forwarding_fields(bench):
    app, proxy = bench()
    proxy.ask(get("/", "X-Forwarded-For: 6.6.6.6", "X-Real-IP: 6.6.6.6", "Forwarded: for=6.6.6.6", "X-Spaced-Site: other",
                  "X-Forwarded-Proto: https", "X_Forwarded_For: 6.6.6.6", "Content_Length: 5", "X-Keep: yes",
                  "Proxy-Authorization: Basic eA==", "TE: trailers", "Keep-Alive: 5", "Connection: X-Hop, keep-alive",
                  "X-Hop: gone", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__", host="A.Test.:8080"))
    r = app.requests[0]
    assert r.get("x-forwarded-for") == "127.0.0.1" and r.get("x-real-ip") == "127.0.0.1"
    assert r.get("x-forwarded-proto") == "http" and r.get("x-forwarded-host") == "A.Test.:8080"
    assert r.get("x-forwarded-port") == "8080" and r.get("host") == "A.Test.:8080"
    assert r.get("forwarded") == 'for=127.0.0.1;host="A.Test.:8080";proto=http'
    assert re.fullmatch("[0-9a-f]{32}", r.get("x-request-id"))
    assert r.get("x-keep") == "yes"
    for gone in ("x-spaced-site", "x_forwarded_for", "content_length", "proxy-authorization", "te", "keep-alive", "x-hop",
                 "upgrade", "http2-settings", "connection"):
        assert r.get(gone) is None, gone


def test_request_id_is_kept(bench):
    app, proxy = bench()
    m = proxy.ask(get("/", "X-Request-Id: abc-1"))
    assert app.requests[0].get("x-request-id") == "abc-1" and m.get("x-request-id") == "abc-1"
    proxy.ask(get("/", "X-Request-Id: a b\t<x>"))
    assert re.fullmatch("[0-9a-f]{32}", app.requests[1].get("x-request-id"))


def test_absolute_form(bench):
    app, proxy = bench()
    assert proxy.ask(b"GET http://a.test/p?q HTTP/1.1\r\n" + H + b"\r\n").body == b"/p?q"
    assert app.requests[0].line == "GET /p?q HTTP/1.1"


def test_options_star(bench):
    app, proxy = bench()
    assert proxy.ask(get("*", method="OPTIONS")).status == 200
    assert app.requests[0].line == "OPTIONS * HTTP/1.1"


def test_one_empty_line_before_a_request(bench):
    _, proxy = bench()
    assert proxy.ask(b"\r\n" + get("/a")).body == b"/a"
    assert proxy.ask(b"\r\n\r\n" + get("/a")).status == 400


def test_head_byte_by_byte(bench):
    app, proxy = bench()
    peer = proxy.connect()
    for b in get("/slow", "X-A: b"):
        peer.send(bytes([b]))
    assert peer.message().body == b"/slow"
    assert app.requests[0].get("x-a") == "b"


def test_keep_alive_reuses_one_upstream_connection(bench):
    app, proxy = bench()
    peer = proxy.connect()
    for i in range(20):
        peer.send(get(f"/{i}"))
        assert peer.message().body == b"/%d" % i
    assert proxy.ask(get("/other")).body == b"/other"
    assert app.connections == 1


def test_http10(bench):
    app, proxy = bench()
    peer = proxy.connect()
    peer.send(get("/", version="1.0"))
    m = peer.message()
    assert m.status == 200 and m.get("connection") == "close" and peer.closed()
    peer = proxy.connect()
    for _ in range(2):
        peer.send(get("/", "Connection: keep-alive", version="1.0"))
        assert peer.message().get("connection") == "keep-alive"
    assert app.requests[0].line == "GET / HTTP/1.1"


def test_connection_close(bench):
    _, proxy = bench()
    peer = proxy.connect()
    peer.send(get("/", "Connection: close") + get("/never"))
    m = peer.message()
    assert m.get("connection") == "close" and m.body == b"/"
    assert peer.closed()


def test_pipelining_in_order(bench):
    app, proxy = bench()
    peer = proxy.connect()
    peer.send(b"".join(get(f"/{i}") for i in range(50)) + get("/p", "Content-Length: 3", method="POST") + b"xyz" + get("/z"))
    for i in range(50):
        assert peer.message().body == b"/%d" % i
    assert peer.message().body == b"xyz"
    assert peer.message().body == b"/z"
    assert app.connections == 1, "depth 1: one after the other"


def test_pipelined_refusals(bench):
    _, proxy = bench()
    peer = proxy.connect()
    peer.send(get("/", host="nobody.test") * 2000)
    for _ in range(2000):
        assert peer.message().status == 404


def test_content_length_body(bench):
    app, proxy = bench()
    m = proxy.ask(get("/", "Content-Length: 5", method="POST") + b"hello")
    assert m.body == b"hello" and app.requests[0].get("content-length") == "5"
    m = proxy.ask(get("/", "Content-Length: 0", method="POST"))
    assert app.requests[1].get("content-length") == "0"


def test_chunked_both_ways(bench):
    def handler(peer, app):
        while True:
            m = app.record(peer.message())
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n")
            peer.send(b"3;name=\"v\"\r\nabc\r\n2\r\nde\r\n0\r\nX-T: v\r\n\r\n")

    app, proxy = bench(handler)
    peer = proxy.connect()
    for _ in range(2):
        peer.send(get("/", "Transfer-Encoding: chunked", method="POST"))
        peer.send(b"5;ext=1\r\nhello\r\n" + b"1\r\n!\r\n" * 200 + b"000\r\nTrailer-Field: x\r\n\r\n")
        m = peer.message()
        assert m.body == b"abcde" and m.get("trailer") is None
    for r in app.requests:
        assert r.get("transfer-encoding") == "chunked" and r.get("content-length") is None
        assert r.body == b"hello" + b"!" * 200
    assert app.connections == 1


BAD_CHUNKS = {
    "size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "negative": b"-5\r\nhello\r\n0\r\n\r\n",
    "space after size": b"5 \r\nhello\r\n0\r\n\r\n",
    "no CRLF after data": b"5\r\nhelloX0\r\n\r\n",
    "bare LF": b"5\nhello\n0\n\n",
    "overflow": b"FFFFFFFFFFFFFFFFF\r\nx",
    "CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "long extension": b"5;" + b"a" * 400 + b"\r\nhello\r\n0\r\n\r\n",
    "endless zeros": b"0" * 20000 + b"5\r\nhello\r\n0\r\n\r\n",
    "endless trailers": b"0\r\n" + b"A: b\r\n" * 3000 + b"\r\n",
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_bad_chunks(bench, name):
    def handler(peer, app):
        app.record(peer.message())
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    app, proxy = bench(handler)
    peer = proxy.connect()
    peer.send(get("/", "Transfer-Encoding: chunked", method="POST") + BAD_CHUNKS[name])
    m = peer.message()
    assert m.status == 400 and m.get("connection") == "close"
    peer.rest()
    assert app.requests == [], "the app got a whole request"


def test_expect_continue_is_answered_here(bench):
    app, proxy = bench()
    peer = proxy.connect()
    peer.send(get("/", "Content-Length: 5", "Expect: 100-continue", method="PUT"))
    assert peer.message().status == 100
    peer.send(b"hello")
    assert peer.message().body == b"hello"
    assert app.requests[0].get("expect") is None


def test_expect_continue_not_for_an_unknown_host(bench):
    _, proxy = bench()
    peer = proxy.connect()
    peer.send(get("/", "Content-Length: 5", "Expect: 100-continue", method="PUT", host="x.test"))
    m = peer.message()
    assert m.status == 404 and m.get("connection") == "close"


@pytest.mark.parametrize("response", [b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
                                      b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"])
def test_no_body_by_status(bench, response):
    app, proxy = bench(says(response))
    peer = proxy.connect()
    for _ in range(3):
        peer.send(get("/"))
        assert peer.message().status == int(response[9:12])
    assert app.connections == 1


def test_head_has_no_body(bench):
    app, proxy = bench()
    peer = proxy.connect()
    for _ in range(3):
        peer.send(get("/abc", method="HEAD"))
        m = peer.message(head_only=True)
        assert m.get("content-length") == "4"
    assert app.connections == 1


def test_interim_responses_are_skipped(bench):
    data = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    _, proxy = bench(says(data))
    peer = proxy.connect()
    for _ in range(2):
        peer.send(get("/"))
        m = peer.message()
        assert m.status == 200 and m.body == b"ok"


BAD_RESPONSES = {
    "CL and TE": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "CL twice": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "101 unasked": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "endless 1xx": b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
    "folded": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "bare CR": b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "NUL": b"HTTP/1.1 200 OK\r\nX: a\0\r\nContent-Length: 0\r\n\r\n",
    "no HTTP": b"hello there, this is no HTTP\r\n\r\n",
    "status 99": b"HTTP/1.1 099 No\r\n\r\n",
    "status 999": b"HTTP/1.1 999 No\r\n\r\n",
    "long head": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100000 + b"\r\n\r\n",
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
}


@pytest.mark.parametrize("name", BAD_RESPONSES)
def test_bad_response(bench, name):
    _, proxy = bench(says(BAD_RESPONSES[name], wait=False))
    m = proxy.ask(get("/", "Accept: application/json"))
    assert m.status == 502
    assert b'"status":502' in m.body and m.get("content-type").startswith("application/json")


def test_truncated_response_is_seen(bench):
    _, proxy = bench(says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", wait=False))
    peer = proxy.connect()
    peer.send(get("/"))
    with pytest.raises((EOFError, ConnectionResetError)):
        peer.message()


def test_truncated_chunked_response_is_seen(bench):
    _, proxy = bench(says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", wait=False))
    peer = proxy.connect()
    peer.send(get("/"))
    with pytest.raises((EOFError, ConnectionResetError)):
        peer.message()


def test_response_until_close(bench):
    app, proxy = bench(says(b"HTTP/1.0 200 OK\r\n\r\nall of it", wait=False))
    peer = proxy.connect()
    for _ in range(2):
        peer.send(get("/"))
        m = peer.message()
        assert m.get("transfer-encoding") == "chunked" and m.body == b"all of it"
    assert app.connections == 2
    m = proxy.ask(get("/", version="1.0"))
    assert m.get("transfer-encoding") is None and m.body == b"all of it"


def test_extra_bytes_end_the_upstream_connection(bench):
    """Response queue poisoning: what comes behind a response is never the next one."""
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    app, proxy = bench(says(evil))
    peer = proxy.connect()
    for _ in range(5):
        peer.send(get("/"))
        assert peer.message().body == b"ok"
    assert app.connections == 5


def test_stale_connection_is_retried_for_get_only(bench):
    """The app closes a kept connection when the next request arrives on it."""

    def handler(peer, app):
        app.record(peer.message())
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        peer.until(b"\r\n\r\n")  # takes the next request and hangs up

    app, proxy = bench(handler)
    peer = proxy.connect()
    for _ in range(3):
        peer.send(get("/"))
        assert peer.message().body == b"ok"
    peer.send(get("/", "Content-Length: 1", method="POST") + b"x")
    assert peer.message().status == 502


def test_no_retry_after_a_byte_of_response(bench):
    def handler(peer, app):
        app.record(peer.message())
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        app.record(peer.message())
        peer.send(b"HTTP/1.1 2")

    app, proxy = bench(handler)
    peer = proxy.connect()
    peer.send(get("/"))
    assert peer.message().body == b"ok"
    peer.send(get("/"))
    assert peer.message().status == 502
    assert len(app.requests) == 2


def test_early_response_closes_both(bench):
    def handler(peer, app):
        app.record(peer.message(head_only=True))
        peer.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
        app.rest = peer.rest()

    app, proxy = bench(handler)
    peer = proxy.connect()
    peer.send(get("/", "Content-Length: 1000000000", method="POST") + b"x" * 1000)
    m = peer.message()
    assert m.status == 413 and m.body == b"big" and m.get("connection") == "close"
    peer.send(b"y" * 100)  # not reset: the answer must stay readable
    peer.sock.shutdown(socket.SHUT_WR)
    peer.rest()


def test_half_close_of_the_client(bench):
    gate = threading.Event()

    def handler(peer, app):
        app.record(peer.message())
        assert gate.wait(PATIENCE)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")

    app, proxy = bench(handler)
    peer = proxy.connect()
    peer.send(get("/"))
    peer.sock.shutdown(socket.SHUT_WR)
    app.wait_requests(1)
    gate.set()
    assert peer.message().body == b"late"
    assert peer.closed()


def test_client_that_leaves_events_ends_them(bench):
    left = threading.Event()

    def handler(peer, app):
        app.record(peer.message())
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        peer.rest()
        left.set()

    app, proxy = bench(handler)
    peer = proxy.connect()
    peer.send(get("/"))
    peer.until(b"data: 1")
    peer.close()
    assert left.wait(PATIENCE), "the app was not told"


def test_events_pass_at_once(bench):
    """Each event is awaited by the client before the app says the next: buffering would be a deadlock."""
    seen = threading.Semaphore(0)

    def handler(peer, app):
        app.record(peer.message())
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(20):
            event = b"data: %d\n\n" % i
            peer.send(b"%x\r\n%s\r\n" % (len(event), event))
            assert seen.acquire(timeout=PATIENCE)
        peer.send(b"0\r\n\r\n")

    _, proxy = bench(handler)
    peer = proxy.connect()
    peer.send(get("/"))
    peer.until(b"\r\n\r\n")
    for i in range(20):
        peer.until(b"data: %d\n\n" % i)
        seen.release()
    peer.until(b"0\r\n\r\n")


def test_upload_passes_at_once(bench):
    got = threading.Semaphore(0)

    def handler(peer, app):
        m = peer.message(head_only=True)
        for _ in range(10):
            peer.until(b"part")
            got.release()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        app.record(m)

    _, proxy = bench(handler)
    peer = proxy.connect()
    peer.send(get("/", "Transfer-Encoding: chunked", method="POST"))
    for _ in range(10):
        peer.send(b"4\r\npart\r\n")
        assert got.acquire(timeout=PATIENCE)
    peer.send(b"0\r\n\r\n")
    assert peer.message().status == 200


BIG = 300 << 20


def test_big_download_in_bounded_memory(bench):
    block = hashlib.sha256(b"seed").digest() * 32768  # 1 MiB

    def handler(peer, app):
        app.record(peer.message())
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG)
        for _ in range(BIG // len(block)):
            peer.send(block)

    _, proxy = bench(handler)
    peer = proxy.connect()
    peer.send(get("/"))
    peer.until(b"\r\n\r\n")
    n, want = len(peer.buf), hashlib.sha256(block)
    digest = hashlib.sha256(peer.buf)
    while n < BIG:
        data = peer.sock.recv(1 << 20)
        assert data
        digest.update(data)
        n += len(data)
    want = hashlib.sha256()
    for _ in range(BIG // len(block)):
        want.update(block)
    assert n == BIG and digest.digest() == want.digest()
    assert proxy.memory("VmHWM") < 32 << 10


@pytest.mark.parametrize("chunked", [False, True])
def test_big_upload_in_bounded_memory(bench, chunked):
    block = os.urandom(1 << 20)
    count = BIG // len(block)

    def handler(peer, app):
        m = peer.message(head_only=True)
        digest, n = hashlib.sha256(), 0
        while n < BIG:
            if chunked:
                size = int(peer.until(b"\r\n"), 16)
                digest.update(peer.exactly(size))
                peer.exactly(2)
                n += size
            else:
                data = peer.take(len(peer.buf)) or peer.sock.recv(1 << 20)
                digest.update(data)
                n += len(data)
        if chunked:
            peer.until(b"0\r\n\r\n")
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + digest.hexdigest().encode())

    _, proxy = bench(handler)
    peer = proxy.connect()
    peer.send(get("/", "Transfer-Encoding: chunked" if chunked else f"Content-Length: {BIG}", method="POST"))
    want = hashlib.sha256()
    for _ in range(count):
        peer.send(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
        want.update(block)
    if chunked:
        peer.send(b"0\r\n\r\n")
    assert peer.message().body == want.hexdigest().encode()
    assert proxy.memory("VmHWM") < 32 << 10


def test_slow_reader_holds_back_the_app(bench):
    """The client reads nothing: the app cannot push more than what sockets and one block hold."""
    sent = [0]

    def handler(peer, app):
        app.record(peer.message())
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 30))
        peer.sock.setblocking(False)
        while True:
            if not select.select([], [peer.sock], [], 2)[1]:
                break
            try:
                sent[0] += peer.sock.send(b"x" * (1 << 20))
            except BlockingIOError:
                pass
        with app.changed:
            app.stuck = True
            app.changed.notify_all()
        peer.rest()

    app, proxy = bench(handler)
    app.stuck = False
    peer = proxy.connect()
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    peer.send(get("/"))
    with app.changed:
        assert app.changed.wait_for(lambda: app.stuck, PATIENCE), "the app was never held back"
    assert sent[0] < 64 << 20
    assert proxy.memory() < 16 << 10
    assert proxy.ask(get("/", host="none.test")).status == 404, "others are served meanwhile"


def test_upload_waits_for_a_slow_app(bench):
    gate = threading.Event()

    def handler(peer, app):
        m = peer.message(head_only=True)
        assert gate.wait(PATIENCE)
        peer.exactly(50 << 20)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    _, proxy = bench(handler)
    peer = proxy.connect()
    peer.send(get("/", f"Content-Length: {50 << 20}", method="POST"))
    peer.sock.setblocking(False)
    n = 0
    while n < 50 << 20 and select.select([], [peer.sock], [], 1)[1]:
        n += peer.sock.send(b"x" * min(1 << 20, (50 << 20) - n))
    assert n < 50 << 20, "the client was never held back"
    assert proxy.memory() < 16 << 10
    gate.set()
    peer.sock.settimeout(PATIENCE)
    peer.send(b"x" * ((50 << 20) - n))
    assert peer.message().body == b"ok"


def accept_key(key):
    return base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()


def upgrade(*more, **kw):
    return get("/ws", "Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *more, **kw)


def tunnel(peer, app):
    m = app.record(peer.message())
    key = accept_key(m.get("sec-websocket-key"))
    peer.send(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
              f"Sec-WebSocket-Accept: {key}\r\n\r\nfirst".encode())
    while peer.fill():
        peer.send(peer.take(len(peer.buf))[::-1])
    peer.send(b"last")


def test_websocket_bytes_and_half_close(bench):
    app, proxy = bench(tunnel)
    peer = proxy.connect()
    peer.send(upgrade() + b"early")
    m = peer.message()
    assert m.status == 101 and m.get("upgrade") == "websocket" and m.get("connection") == "Upgrade"
    assert peer.exactly(10) == b"firstylrae"
    peer.send(b"abc")
    assert peer.exactly(3) == b"cba"
    peer.sock.shutdown(socket.SHUT_WR)
    assert peer.rest() == b"last"
    assert app.requests[0].get("upgrade") == "websocket" and app.requests[0].get("connection") == "Upgrade"


def test_websocket_refused_by_the_app(bench):
    app, proxy = bench(says(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"))
    peer = proxy.connect()
    peer.send(upgrade())
    m = peer.message()
    assert m.status == 403 and m.body == b"no"
    peer.send(get("/"))
    assert peer.message().status == 403


@pytest.mark.parametrize("bad", [
    get("/", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    get("/", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: short"),
    upgrade(method="POST"), upgrade("Content-Length: 5") + b"hello"])
def test_websocket_bad_handshake(bench, bad):
    app, proxy = bench(tunnel)
    assert proxy.ask(bad).status == 400
    assert app.requests == []


@pytest.mark.parametrize("answer", [b"Upgrade: h2c\r\nConnection: Upgrade\r\n", b"Upgrade: websocket\r\n", b""])
def test_websocket_bad_answer(bench, answer):
    key = accept_key("dGhlIHNhbXBsZSBub25jZQ==").encode()
    _, proxy = bench(says(b"HTTP/1.1 101 Switching Protocols\r\n" + answer + b"Sec-WebSocket-Accept: " + key + b"\r\n\r\n"))
    assert proxy.ask(upgrade()).status == 502


def test_websocket_real_client_and_server(tmp_path):
    websockets = pytest.importorskip("websockets")

    async def run():
        async def echo(ws, path):
            async for message in ws:
                await ws.send(message)

        async with websockets.serve(echo, "127.0.0.1", 0, max_size=None) as server:
            port = server.sockets[0].getsockname()[1]
            proxy = Proxy(tmp_path, {"localhost": f"127.0.0.1:{port}"})
            try:
                uri = f"ws://localhost:{proxy.port}/"
                async with websockets.connect(uri, max_size=None, host="127.0.0.1", port=proxy.port) as ws:
                    for size in (0, 1, 125, 126, 65535, 65536, 5 << 20):
                        data = os.urandom(size)
                        await ws.send(data)
                        assert await ws.recv() == data
                    await ws.send("text ☃")
                    assert await ws.recv() == "text ☃"
                    await (await ws.ping())
                assert ws.close_code == 1000
            finally:
                proxy.close()

    asyncio.run(asyncio.wait_for(run(), 60))


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
    assert proxy.connect().message().status == 429
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
