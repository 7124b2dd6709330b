"""How the stand-alone proxy and its workers end: what waits in a listening socket, on a kept connection or in flight."""
import os
import re
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
    except ConnectionResetError:  # it waited in a socket that has just been closed
        return False


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


def waits_for(pid, signum):
    """Whether the signal has been sent to the process, which is frozen."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^ShdPnd:\s*(\w+)", status, re.M)[1], 16) >> (signum - 1) & 1


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
    wait_until(lambda: not set(children(proxy.process)) & set(before))


def test_crash_while_the_routes_have_a_mistake(bench):
    """Who takes the place of the dead serves what was served before, and what is right again after the next SIGHUP."""
    def said(text):
        return Path(proxy.log.name).read_text().count(text)

    def load(routes, text, times):
        proxy.write(routes)
        before = said(text)
        proxy.process.send_signal(signal.SIGHUP)
        wait_until(lambda: said(text) == before + times)

    app, proxy = bench(workers=2)
    wait_until(lambda: said("routes from") == 2)
    to = f"127.0.0.1:{app.port}"
    load({"a.test": to, "later.test": to}, "2 routes from", 2)
    load({"a.test": "nowhere"}, "routes:1: expected", 2)
    before = children(proxy.process)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(children(proxy.process)) == 2 and not set(children(proxy.process)) & set(before))
    for _ in range(20):
        assert proxy.ask(get("/", host="later.test")).status == 200
    load({"b.test": to}, "1 routes from", 2)
    for _ in range(20):
        assert proxy.ask(get("/", host="b.test")).status == 200
    assert proxy.ask(get("/", host="later.test")).status == 404


@pytest.mark.parametrize("workers", [1, 2])
def test_end_takes_what_waits(bench, workers):
    _, proxy = bench(None, "drain_ms=600000", workers=workers)
    if workers > 1:
        wait_until(lambda: len(children(proxy.process)) == workers)
    pids = children(proxy.process) if workers > 1 else [proxy.process.pid]
    freeze(*pids)
    waiting = [proxy.connect() for _ in range(20)]
    for peer in waiting:
        peer.send(get("/"))
    proxy.process.terminate()
    wait_until(lambda: all(waits_for(pid, signal.SIGTERM) for pid in pids))
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

    def goes_on():
        nonlocal drain_ms
        drain_ms *= 2
        _, proxy = bench(handler, f"drain_ms={drain_ms}")
        peer = proxy.connect()
        peer.send(get("/"))
        peer.until(b"data: x")
        ended = time.monotonic()
        proxy.process.terminate()
        wait_until(lambda: refuses(proxy))
        try:
            for _ in range(10):
                peer.until(b"data: x")
        except (EOFError, OSError):
            assert time.monotonic() - ended > drain_ms / 1000, "it was cut off early"
            return False
        peer.rest()
        assert time.monotonic() - ended > drain_ms / 1000
        assert proxy.process.wait(PATIENCE) == 0
        return True

    drain_ms = 1000
    wait_until(goes_on)  # unless somebody was held up for as long


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_its_processes(bench, signum):
    """As a terminal's Ctrl-C, or a service manager's: a worker gets its own, and the one that is passed on."""
    def reads():
        return Path(proxy.log.name).read_text().count("routes from")

    gate = Gate()
    app, proxy = bench(gate, "drain_ms=600000", workers=2)
    peer = proxy.connect()
    peer.send(get("/"))
    app.wait_requests(1)
    proxy.process.send_signal(signum)
    wait_until(lambda: refuses(proxy) and len(children(proxy.process)) == 1)
    worker, before = children(proxy.process)[0], reads()
    os.kill(worker, signum)
    os.kill(worker, signal.SIGHUP)  # is handled after it
    wait_until(lambda: reads() > before or not children(proxy.process))
    gate.open.set()
    assert peer.message().status == 200
    assert proxy.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("signals", [[signal.SIGQUIT], [signal.SIGTERM, signal.SIGTERM], [signal.SIGINT, signal.SIGQUIT]])
@pytest.mark.parametrize("workers", [1, 2])
def test_at_once(bench, signals, workers):
    gate = Gate()
    app, proxy = bench(gate, "drain_ms=600000", workers=workers)
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
    end = time.monotonic() + PATIENCE
    while True:
        _, proxy = bench()
        peers = [proxy.connect() for _ in range(8)]
        for peer in peers:
            peer.send(get("/"))
            assert peer.message().get("connection") is None
        ended = time.monotonic()
        proxy.process.terminate()
        wait_until(lambda p=proxy: refuses(p))
        time.sleep(delay)
        for peer in peers:
            peer.send(get("/again"))
        if time.monotonic() < ended + 1:  # so long it waits; else it is to be tried again
            break
        assert time.monotonic() < end
    for peer in peers:
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
