"""A raw client, a raw app and the stand-alone proxy between them: what the test_proxy_*.py files are made of."""
import os
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from harness import reserved_port

BUILD = Path(os.environ.get("SPACED_BUILD", "build"))
PATIENCE = 60  # seconds: a bound on waiting, never a measure
KEPT = 3  # seconds for which the proxy surely keeps what nobody uses: a connection to an app (4), one that it has refused (3)


def holds(condition, seconds=KEPT):
    """Whether the condition is true, of something that lasts no longer than some seconds: when it is not and that took longer, for
    somebody was held up, it is seen again."""
    end = time.monotonic() + PATIENCE
    while True:
        since = time.monotonic()
        if condition():
            return True
        if since > end or time.monotonic() < since + seconds:
            return False


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
    def __init__(self, tmp, routes, *limits, workers=1, trusted=None, more=()):
        self.reserved = reserved_port()
        self.port = self.reserved.getsockname()[1]
        self.file = tmp / "routes"
        self.write(routes)
        self.log = open(tmp / "proxy.log", "ab")
        self.log_begin = os.path.getsize(self.log.name)
        args = [str(BUILD / "proxy"), "--listen", f"127.0.0.1:{self.port}", "--routes", str(self.file)]
        args += [a for limit in limits for a in ("--limit", limit)]
        if workers > 1:
            args += ["--workers", str(workers)]
        if trusted:
            args += ["--trusted-proxy", trusted]
        self.process = subprocess.Popen([*args, *more], stderr=self.log)
        self.open = []
        self.wait_ready(workers)

    def write(self, routes):
        tmp = self.file.with_suffix(".new")
        tmp.write_text("".join(f"{host} {to}\n" for host, to in routes.items()))
        tmp.rename(self.file)

    def wait_ready(self, workers):
        """By its own word: who listens there might be another one."""
        end = time.monotonic() + PATIENCE
        while Path(self.log.name).read_bytes()[self.log_begin:].count(b" routes from ") < workers:
            assert self.process.poll() is None, "the proxy did not start"
            assert time.monotonic() < end
            time.sleep(0.01)

    def connect(self, source=None):
        """From 127.0.0.1 by itself, where the kernel finds a port also when floods have left few."""
        peer = Peer(socket.create_connection(("127.0.0.1", self.port), PATIENCE, source_address=source and (source, 0)))
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
            self.reserved.close()


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
