"""Slow clients and floods against one Space of a proxy: another Space beside it is served all the while, and when it is over
nothing is held. Each attack is seen to be under way before the others are asked. How much slower others get: tests/bench."""
import os
import resource
import socket
import subprocess
import threading
import time

import pytest

from proxyraw import PATIENCE, App, Peer, Proxy, get

MANY = 10000


@pytest.fixture
def street(tmp_path):
    """street(*limits) -> proxy: the attacked Space is 127.0.0.1, the other one b.test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    made = []

    def make(handler=None, *limits):
        apps = [App(handler), App()]
        proxy = Proxy(tmp_path, {"127.0.0.1": f"127.0.0.1:{apps[0].port}", "b.test": f"127.0.0.1:{apps[1].port}"}, *limits)
        made.extend([proxy, *apps])
        return proxy

    yield make
    for thing in made:
        thing.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def descriptors(proxy):
    folder = f"/proc/{proxy.process.pid}/fd"
    links = []
    for name in os.listdir(folder):
        try:
            links.append(os.readlink(f"{folder}/{name}"))
        except FileNotFoundError:
            pass
    return links


def connections(proxy):
    return sum(link.startswith("socket:") for link in descriptors(proxy))


def wait(what, text):
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, text
        time.sleep(0.02)


def others_are_served(proxy, n=200):
    """On one connection that stays, and on new ones."""
    peer = proxy.connect()
    for i in range(n):
        peer.send(get(f"/{i}", host="b.test"))
        assert peer.message().body == b"/%d" % i
        if i % 10 == 0:
            fresh = proxy.connect()
            fresh.send(get("/new", "Connection: close", host="b.test"))
            assert fresh.message().body == b"/new"
            fresh.close()


def large(peer, app):
    """Answers with what no window holds."""
    while True:
        peer.message()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 20) + bytes(1 << 20))


@pytest.mark.parametrize("mode", ["-H", "-B", "-R", "-X"])
def test_slowhttptest(street, tmp_path, mode):
    """Slow heads (slowloris), slow bodies (RUDY), ranges that overlap, slow reading: 800 connections each."""
    proxy = street(large if mode == "-X" else None, "head_ms=3000", "stall_ms=4000")
    idle = connections(proxy)
    command = ["slowhttptest", mode, "-c", "800", "-r", "800", "-i", "1", "-l", "4", "-x", "16", "-p", "5", "-v", "0",
               "-u", f"http://127.0.0.1:{proxy.port}/", *(["-w", "1", "-y", "2", "-z", "1", "-n", "5"] if mode == "-X" else [])]
    end = time.monotonic() + PATIENCE
    seen = mode == "-R"  # the ranges are answered at once and so are soon over; the other three stay
    while True:
        with open(tmp_path / "slow.log", "wb") as log:
            attack = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                while not seen and attack.poll() is None:
                    seen = connections(proxy) > idle + 400
                    time.sleep(0.02)
                others_are_served(proxy)
                attack.wait(PATIENCE)
            finally:
                attack.kill()
                attack.wait()
        if seen:
            break
        assert time.monotonic() < end, "there was no attack"
    assert proxy.memory("VmHWM") < 96 << 10
    for peer in proxy.open:
        peer.close()
    wait(lambda: connections(proxy) <= idle + 8, "connections were left")
    wait(lambda: len(descriptors(proxy)) < 100, "pipes were left")


def test_ten_thousand_idle_connections(street):
    proxy = street(None, "per_client=16000", "idle_ms=600000")
    before = proxy.memory()
    for i in range(MANY):
        peer = proxy.connect()
        peer.send(get("/", host="nobody.test"))
        if i % 100 == 99:
            for p in proxy.open[-100:]:
                assert p.message().status == 404
    assert connections(proxy) > MANY
    grown = proxy.memory() - before
    others_are_served(proxy)
    assert grown < MANY * 2, f"{grown} KiB for {MANY} connections"


def flood(street, act, times=50, asked=200):
    """Eight threads do `act` for as long as others ask; the others begin when it was done so many times."""
    proxy = street()
    over = threading.Event()
    count = [0] * 8

    def run(i):
        while not over.is_set():
            try:
                act(proxy, over)
            except OSError:
                pass
            count[i] += 1

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(8)]
    for t in threads:
        t.start()
    try:
        wait(lambda: sum(count) >= times, "there was no flood")
        others_are_served(proxy, asked)
    finally:
        over.set()
        for t in threads:
            t.join(PATIENCE)
    assert proxy.memory("VmHWM") < 32 << 10
    others_are_served(proxy, 10)


def raw(proxy):
    return socket.create_connection(("127.0.0.1", proxy.port), PATIENCE)


def test_flood_of_connections(street):
    def act(proxy, over):
        for _ in range(20):
            raw(proxy).close()

    flood(street, act)


def test_flood_of_requests_without_keep_alive(street):
    def act(proxy, over):
        peer = Peer(raw(proxy))
        peer.send(get("/", "Connection: close", host="127.0.0.1"))
        assert peer.message().status == 200
        peer.close()

    flood(street, act)


def test_flood_of_headers(street):
    """Heads without end are cut at 32 KiB each."""
    more = (b"X-Y: " + b"z" * 4000 + b"\r\n") * 256

    def act(proxy, over):
        with raw(proxy) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            while not over.is_set():
                sock.sendall(more)

    flood(street, act, 8, 50)


def test_flood_of_resets(street):
    """Requests whose client is gone, by a reset, before the answer."""
    def act(proxy, over):
        with raw(proxy) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.sendall(get("/", host="127.0.0.1"))

    flood(street, act)


def test_connections_of_a_worker_are_bounded(street):
    proxy = street(None, "connections=20")

    def admitted():
        peer = proxy.connect()
        peer.send(get("/", host="b.test"))
        m = peer.message()
        if m.status == 200:
            return peer
        assert m.status == 503 and m.get("retry-after") and m.get("connection") == "close" and peer.closed()
        return None

    inside = []
    while (peer := admitted()) is not None:
        inside.append(peer)
    assert 18 <= len(inside) <= 20
    # Those that are in are served, and one that leaves makes room.
    inside[0].send(get("/still", host="b.test"))
    assert inside[0].message().body == b"/still"
    inside[0].close()
    wait(admitted, "no room was made")
