"""Tunnels below WebSocket frames: what becomes of the bytes when an end stops reading, is half closed, or breaks."""
import os
import socket
import struct
import threading
import time

import pytest

from proxyraw import PATIENCE, Peer, Proxy, bench, get  # noqa: F401 (bench is a fixture)

UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
UPGRADED = (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def enter(proxy, path="/"):
    peer = proxy.connect()
    peer.send(get(path, *UPGRADE))
    assert peer.message(head_only=True).status == 101
    return peer


def descriptors(proxy):
    return len(os.listdir(f"/proc/{proxy.process.pid}/fd"))


def idle(proxy):
    def used():
        with open(f"/proc/{proxy.process.pid}/schedstat") as f:
            return int(f.read().split()[2])  # times it ran

    before = used()
    time.sleep(0.1)
    return used() - before < 5  # its tick


def test_a_client_that_breaks_while_the_app_does_not_read_is_noticed(bench):
    end = threading.Event()

    def handler(peer, app):
        app.record(peer.message())
        peer.send(UPGRADED)
        end.wait(2 * PATIENCE)

    _, proxy = bench(handler)
    other = proxy.connect()
    for _ in range(2):
        other.send(get(host="unknown.test"))
        assert other.message().status == 404  # whoever came before it has gone, in the turn of the first one at the latest
    before = descriptors(proxy)
    peer = enter(proxy)
    peer.sock.settimeout(0.5)
    with pytest.raises(socket.timeout):
        peer.sock.sendall(bytes(1 << 26))
    until(lambda: descriptors(proxy) == before + 2)
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    until(lambda: descriptors(proxy) == before)
    end.set()


def test_nothing_is_lost_when_the_app_has_ended_its_side_first(tmp_path):
    """And reads late: of several lengths some end just where the kernel takes no more, and there the client's end comes too."""
    go, heard = threading.Event(), {}

    def serve(sock):
        peer = Peer(sock)
        size = int(peer.message().line.split()[1][1:])
        peer.send(UPGRADED)
        sock.shutdown(socket.SHUT_WR)
        go.wait(PATIENCE)
        heard[size] = len(peer.rest())
        sock.close()

    def accept():
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "app"))
        listener.listen(64)
        threading.Thread(target=accept, daemon=True).start()
        proxy = Proxy(tmp_path, {"a.test": f"unix:{tmp_path}/app"})
        try:
            for size in range(100000, 500000, 10000):
                peer = enter(proxy, f"/{size}")
                assert peer.rest() == b""
                threading.Thread(target=lambda p=peer, n=size: (p.send(bytes(n)), p.sock.shutdown(socket.SHUT_WR)), daemon=True).start()
            # Until the proxy has read all that it can: it then does nothing more.
            until(lambda: idle(proxy))
            go.set()
            until(lambda: len(heard) == 40)
        finally:
            proxy.close()
    assert heard == {size: size for size in heard}
