"""What the stand-alone proxy does with its sockets below HTTP: packets, edges, descriptors."""
import contextlib
import os
import resource
import signal
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from proxyraw import PATIENCE, App, bench, get, holds  # noqa: F401 (bench is a fixture)


def packets_in(sock):
    """tcpi_segs_in of Linux."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return struct.unpack_from("I", info, 140)[0]


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end


@contextlib.contextmanager
def stopped(proxy):
    """What happens meanwhile meets the proxy all at once, in its order."""
    os.kill(proxy.process.pid, signal.SIGSTOP)
    try:
        until(lambda: Path(f"/proc/{proxy.process.pid}/stat").read_text().rpartition(") ")[2][0] == "T")
        yield
    finally:
        os.kill(proxy.process.pid, signal.SIGCONT)


@pytest.mark.parametrize("request_head", [get("/", "Connection: close"), get("/", version="1.0"), get("/", host="unknown.test", version="1.0"),
                                          b"nonsense\r\n\r\n"])
def test_an_answer_ends_the_connection_in_its_last_packet(bench, request_head):
    """Two come to the client: the kernel's own, and the answer, which acknowledges the request. Unless the app is slow."""
    _, proxy = bench()

    def ask():
        peer = proxy.connect()
        peer.send(request_head)
        assert peer.message().status and peer.rest() == b""
        return packets_in(peer.sock)

    until(lambda: ask() == 2)


def seconds_of_the_third(proxy, *pieces):
    peer = proxy.connect()
    peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    for _ in range(3):
        before = time.monotonic()
        for piece in pieces:
            peer.send(piece)
        assert peer.message().body == b"0123456789"
    return time.monotonic() - before


@pytest.mark.parametrize("cut", [5, -5])
def test_who_sends_in_pieces_waits_for_no_delayed_acknowledgement(bench, cut):
    """A client with Nagle's algorithm: its second piece comes when the first is acknowledged. The kernel delays that by 40 ms or more."""
    _, proxy = bench()
    request = get("/", "Content-Length: 10", method="POST") + b"0123456789"
    until(lambda: seconds_of_the_third(proxy, request[:cut], request[cut:]) < 0.035)


@pytest.mark.parametrize("cut", [5, -5])
def test_nor_does_an_app_that_answers_in_pieces(bench, cut):
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"

    def handler(peer, app):
        while True:
            app.record(peer.message())
            peer.send(answer[:cut])
            peer.send(answer[cut:])

    _, proxy = bench(handler)
    until(lambda: seconds_of_the_third(proxy, get()) < 0.035)


def test_urgent_data_hides_nothing(bench):
    """A read stops before an urgent byte, which is left out. What lies behind it has come already: no other event tells of it."""
    _, proxy = bench()
    peer = proxy.connect()
    peer.send(get("/1"))
    assert peer.message().body == b"/1"
    with stopped(proxy):
        peer.send(get("/2")[:7])
        peer.sock.send(b"!", socket.MSG_OOB)
        peer.send(get("/2")[7:])
    assert peer.message().body == b"/2"


def test_without_descriptors_visitors_wait(bench):
    _, proxy = bench()
    resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE, (40, 40))
    peers = [proxy.connect() for _ in range(80)]
    for peer in peers:
        peer.send(get("/", "Connection: close", host="unknown.test"))
        assert peer.message().status == 404
        peer.close()
    assert proxy.ask(get("/")).status == 200


def test_who_pipelines_lets_others_have_their_turn(bench):
    """Requests are numbered as they are begun."""
    _, proxy = bench()
    many, one = proxy.connect(), proxy.connect()
    n = 1000
    for peer in (many, one):  # it has both before it is stopped
        peer.send(get(host="unknown.test"))
        assert peer.message().status == 404
    with stopped(proxy):
        many.send(get(host="unknown.test") * n)
        one.send(get(host="unknown.test"))
    number = int(one.message().get("x-request-id")[-16:], 16)
    numbers = [int(many.message().get("x-request-id")[-16:], 16) for _ in range(n)]
    assert numbers == sorted(numbers) and numbers[0] < number < numbers[n // 2]


def test_a_request_behind_one_that_meets_a_broken_connection_is_read_on(bench):
    """Two connections to the app are kept, the one that is used first is reset, unseen. The second request has still the other one."""
    first, go, go_on = [], threading.Event(), threading.Event()

    def handler(peer, app):
        if app.record(peer.message()).line.startswith("GET /first"):
            first.append(peer.sock)
            go.wait(PATIENCE)
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            go_on.wait(2 * PATIENCE)
            return
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        App.echo(peer, app)

    def is_read_on():
        go.clear()
        app, proxy = bench(handler)
        peer, other = proxy.connect(), proxy.connect()
        peer.send(get("/first"))
        app.wait_requests(1)
        other.send(get("/second"))
        assert other.message().status == 200
        go.set()
        assert peer.message().status == 200
        with stopped(proxy):
            peer.send(get("/1", "Content-Length: 0", method="POST") + get("/2", "Content-Length: 10", method="POST") + b"01234")
            first[-1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            first[-1].close()
        if peer.message().status != 502:
            return False
        peer.send(b"56789")
        return peer.message().body == b"0123456789"

    assert holds(is_read_on)
    go_on.set()
