"""Large bodies and tunnels: the bytes that move inside the kernel, and those that a slow reader leaves behind in between, arrive whole
and in order; and the same without splice(2)."""
import hashlib
import os
import random
import threading

import pytest

from proxyraw import PATIENCE, bench, holds  # noqa: F401
from test_proxy_raw import get
from test_proxy_stream import upgrade

SIZE = 48 << 20
DATA = random.Random(4).randbytes(SIZE)
WANT = hashlib.sha256(DATA).digest()


@pytest.fixture(params=["splice", "copy"], autouse=True)
def way(request, monkeypatch):
    if request.param == "copy":
        monkeypatch.setenv("SPACED_NO_SPLICE", "1")
    return request.param


def unsteady(peer, n, seed):
    """Reads `n` bytes, now much and now little, and now and then not at all for as long as the other side can go on."""
    pick, digest, got = random.Random(seed), hashlib.sha256(), 0
    pause = threading.Event()
    data = peer.take(min(n, len(peer.buf)))
    while True:
        digest.update(data)
        got += len(data)
        if got >= n:
            return digest.digest()
        if pick.random() < 0.02:
            pause.wait(0.02)
        data = peer.sock.recv(min(n - got, pick.choice([1000, 70000, 1 << 20])))
        if not data:
            raise EOFError(f"{got} of {n}")


def test_download(bench, way):  # noqa: F811
    def handler(peer, app):
        while True:
            app.record(peer.message())
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
            peer.send(DATA)

    app, proxy = bench(handler)
    peer = proxy.connect()

    def used_again():
        before = app.connections
        for seed in range(2):
            peer.send(get("/"))
            peer.until(b"\r\n\r\n")
            assert unsteady(peer, SIZE, seed) == WANT
        assert peer.buf == b""
        return app.connections <= before + 1

    assert holds(used_again), "both connections are used again after it"


def test_upload(bench, way):  # noqa: F811
    def handler(peer, app):
        while True:
            m = app.record(peer.message(head_only=True))
            if m.line.startswith("POST"):
                peer.body = unsteady(peer, SIZE, len(app.requests))
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\n" + peer.body)

    app, proxy = bench(handler)
    peer = proxy.connect()

    def used_again():
        before = app.connections
        for _ in range(2):
            peer.send(get("/", f"Content-Length: {SIZE}", method="POST"))
            peer.send(DATA)
            peer.send(get("/next"))
            assert peer.message().body == WANT
            assert peer.message().body == WANT, "what comes behind the body is the next request"
        return app.connections <= before + 1

    assert holds(used_again)


def test_tunnel(bench, way):  # noqa: F811
    def handler(peer, app):
        app.record(peer.message())
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
        up = threading.Thread(target=lambda: peer.send(DATA))
        up.start()
        app.digest = unsteady(peer, SIZE, 1)
        up.join(PATIENCE)
        peer.send(app.digest)

    _, proxy = bench(handler)
    peer = proxy.connect()
    peer.send(upgrade())
    assert peer.message(head_only=True).status == 101
    up = threading.Thread(target=lambda: peer.send(DATA))
    up.start()
    assert unsteady(peer, SIZE, 2) == WANT
    up.join(PATIENCE)
    assert peer.exactly(32) == WANT


def test_reader_that_leaves(bench, way):  # noqa: F811
    """A connection that breaks in the middle leaves nothing in the worker for the next one."""
    def handler(peer, app):
        app.record(peer.message())
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        peer.send(DATA)

    _, proxy = bench(handler)
    for seed in range(20):
        peer = proxy.connect()
        peer.send(get("/"))
        unsteady(peer, 1 + os.getpid() % 1000 + seed * 300000, seed)
        peer.close()
    peer = proxy.connect()
    peer.send(get("/"))
    peer.until(b"\r\n\r\n")
    assert unsteady(peer, SIZE, 0) == WANT
