"""Bodies, event streams and WebSockets through the stand-alone proxy: at once, of any size, in bounded memory."""
import asyncio
import base64
import hashlib
import os
import select
import socket
import struct
import threading

import pytest

from proxyraw import PATIENCE, Proxy, bench, get, says  # noqa: F401 (bench is a fixture)


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


BIG = 128 << 20  # of which the proxy may hold a quarter


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
        peer.message(head_only=True)
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


HUGE = (4 << 30) + (64 << 20)  # more than 32 bits count


def pour(sock, n):
    """Zeros that the kernel makes and the kernel takes: the test is no slower than the proxy."""
    sock.setblocking(True)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", PATIENCE, 0))
    with open(os.memfd_create("zeros"), "r+b") as f:
        f.truncate(64 << 20)
        while n:
            n -= os.sendfile(sock.fileno(), f.fileno(), 0, min(n, 64 << 20))


def drain(sock, n):
    into = bytearray(1 << 20)
    while n:
        # TCP throws away what it would have copied (MSG_TRUNC, tcp(7)).
        got = sock.recv_into(into, min(n, len(into)), socket.MSG_TRUNC)
        assert got, "it ended early"
        n -= got


@pytest.mark.parametrize("way", ["upload", "download"])
def test_more_than_four_gigabytes(bench, way):
    def handler(peer, app):
        m = peer.message(head_only=True)
        if way == "upload":
            drain(peer.sock, HUGE - len(peer.buf))
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        else:
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % HUGE)
            pour(peer.sock, HUGE)
        app.record(m)

    app, proxy = bench(handler)
    peer = proxy.connect()
    if way == "upload":
        peer.send(get("/", f"Content-Length: {HUGE}", method="PUT"))
        pour(peer.sock, HUGE)
        assert peer.message().body == b"ok"
    else:
        peer.send(get("/"))
        peer.until(b"\r\n\r\n")
        drain(peer.sock, HUGE - len(peer.buf))
    app.wait_requests(1)
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
        peer.message(head_only=True)
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
        async def echo(ws):
            async for message in ws:
                await ws.send(message)

        async with websockets.serve(echo, "127.0.0.1", 0, max_size=None, ping_timeout=PATIENCE) as server:
            port = server.sockets[0].getsockname()[1]
            proxy = Proxy(tmp_path, {"localhost": f"127.0.0.1:{port}"})
            try:
                uri = f"ws://localhost:{proxy.port}/"
                async with websockets.connect(uri, max_size=None, host="127.0.0.1", port=proxy.port, open_timeout=PATIENCE,
                                              ping_timeout=PATIENCE, close_timeout=PATIENCE) as ws:
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

    asyncio.run(asyncio.wait_for(run(), 2 * PATIENCE))
