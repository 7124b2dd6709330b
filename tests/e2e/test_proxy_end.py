"""How the stand-alone proxy and its workers end: what waits in a listening socket, on a kept connection or in flight."""
import os
import select
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from proxyraw import PATIENCE, bench, get  # noqa: F401 (bench is a fixture)


class Gate:
    """A handler that answers once it may."""

    def __init__(self):
        self.open = threading.Event()

    def __call__(self, peer, app):
        while True:
            app.record(peer.message())
            assert self.open.wait(PATIENCE)
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def children(process):
    return [int(p) for p in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def refuses(proxy):
    try:
        socket.create_connection(("127.0.0.1", proxy.port), PATIENCE).close()
        return False
    except ConnectionRefusedError:
        return True


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def state_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def freeze(*pids):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: all(state_of(pid) == "T" for pid in pids))


def test_crash_of_workers_keeps_their_queues(bench):
    _, proxy = bench(workers=2)
    wait_until(lambda: len(children(proxy.process)) == 2)
    before = children(proxy.process)
    freeze(*before)
    waiting = [proxy.connect() for _ in range(20)]
    for peer in waiting:
        peer.send(get("/"))
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    for peer in waiting:
        assert peer.message().status == 200
    assert not set(children(proxy.process)) & set(before)


@pytest.mark.parametrize("workers", [1, 2])
def test_end_takes_what_waits(bench, workers):
    _, proxy = bench(workers=workers)
    if workers > 1:
        wait_until(lambda: len(children(proxy.process)) == workers)
    pids = children(proxy.process) if workers > 1 else [proxy.process.pid]
    freeze(*pids)
    waiting = [proxy.connect() for _ in range(20)]
    for peer in waiting:
        peer.send(get("/"))
    proxy.process.terminate()
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    for peer in waiting:
        m = peer.message()
        assert m.status == 200 and m.get("connection") == "close"
    assert proxy.process.wait(PATIENCE) == 0
    assert refuses(proxy)


def test_a_stream_goes_on_until_the_drain_ends(bench):
    def handler(peer, app):
        app.record(peer.message())
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while True:
            peer.send(b"data: x\n\n")
            if select.select([peer.sock], [], [], 0.05)[0]:
                return

    _, proxy = bench(handler, "drain_ms=1500")
    peer = proxy.connect()
    peer.send(get("/"))
    peer.until(b"data: x")
    proxy.process.terminate()
    wait_until(lambda: refuses(proxy))
    for _ in range(10):
        peer.until(b"data: x")
    peer.rest()
    assert proxy.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("signals", [[signal.SIGQUIT], [signal.SIGTERM, signal.SIGTERM], [signal.SIGINT, signal.SIGQUIT]])
def test_at_once(bench, signals):
    gate = Gate()
    app, proxy = bench(gate, "drain_ms=600000")
    peer = proxy.connect()
    peer.send(get("/"))
    app.wait_requests(1)
    proxy.process.send_signal(signals[0])
    if len(signals) > 1:
        wait_until(lambda: refuses(proxy))
        proxy.process.send_signal(signals[1])
    assert proxy.process.wait(PATIENCE) == 0
    assert peer.rest() == b""
    gate.open.set()


@pytest.mark.parametrize("delay", [0, 0.5])
def test_a_kept_connection_that_asks_again(bench, delay):
    """It is answered, told to close, and only then closed: no client loses a request that it had sent already."""
    _, proxy = bench()
    peers = [proxy.connect() for _ in range(8)]
    for peer in peers:
        peer.send(get("/"))
        assert peer.message().get("connection") is None
    proxy.process.terminate()
    wait_until(lambda: refuses(proxy))
    time.sleep(delay)  # less than the second that it waits
    for peer in peers:
        peer.send(get("/again"))
        m = peer.message()
        assert m.body == b"/again" and m.get("connection") == "close"
        assert peer.closed()
    assert proxy.process.wait(PATIENCE) == 0


def test_no_request_is_lost_when_routes_are_read_again(bench):
    app, proxy = bench(workers=2)
    stop, wrong, good = threading.Event(), [], [0]

    def visit(keep):
        peer = None
        while not stop.is_set():
            try:
                peer = peer if keep and peer else proxy.connect()
                peer.send(get("/x"))
                m = peer.message()
                good[0] += m.body == b"/x"
                if m.body != b"/x":
                    wrong.append(m.line)
                if not keep:
                    peer.close()
            except (OSError, EOFError) as error:
                wrong.append(repr(error))
                peer = None

    threads = [threading.Thread(target=visit, args=(n % 2,)) for n in range(4)]
    for t in threads:
        t.start()
    for _ in range(30):
        before = good[0]
        proxy.write({"a.test": f"127.0.0.1:{app.port}", "b.test": "127.0.0.1:1"})
        proxy.process.send_signal(signal.SIGHUP)
        wait_until(lambda: good[0] > before + 10)
    stop.set()
    for t in threads:
        t.join()
    assert not wrong, wrong[:5]
