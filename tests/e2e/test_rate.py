"""Requests per second: of a client address and for a Space, with raw sockets; 429 with Retry-After, and nobody else feels it."""
import json
import socket
import time

import pytest

from apps import static_files
from harness import wait_for
from proxyraw import PATIENCE, App, Peer, Proxy, get

BURST_S = 5


@pytest.fixture
def street(tmp_path):
    """street(*limits) -> proxy in front of a.test and b.test."""
    made = []

    def make(*limits, **kw):
        apps = [App(), App()]
        proxy = Proxy(tmp_path, {"a.test": f"127.0.0.1:{apps[0].port}", "b.test": f"127.0.0.1:{apps[1].port}"}, *limits, **kw)
        made.extend([proxy, *apps])
        return proxy

    yield make
    for thing in made:
        thing.close()


def connect(port, source="127.0.0.1"):
    return Peer(socket.create_connection(("127.0.0.1", port), PATIENCE, source_address=(source, 0)))


def ask(peer, host="a.test", path="/", **kw):
    peer.send(get(path, host=host, **kw))
    return peer.message()


def flood(peers, rate, host="a.test"):
    """Asks until 429, and checks that it came neither too early nor too late; the refusal."""
    since = time.monotonic()
    n = 0
    while True:
        for peer in peers:
            answer = ask(peer, host)
            seconds = time.monotonic() - since
            assert n <= BURST_S * rate + rate * (seconds + 0.5) + 1
            if answer.status == 429:
                assert n >= BURST_S * rate
                return answer
            assert answer.status == 200
            n += 1


def test_of_a_client(street):
    proxy = street("client_rate=20")
    peer = connect(proxy.port)
    refused = flood([peer], 20)
    assert refused.get("retry-after") == "1"
    assert ask(connect(proxy.port)).status == 429  # a new connection is no new client
    assert ask(peer, "b.test").status == 429  # nor is another Space
    assert ask(peer, "nobody.test").status == 429
    assert ask(connect(proxy.port, "127.0.0.2")).status == 200
    wait_for("the connection to be of use again", lambda: ask(peer).status == 200, interval=0.1)


def test_for_a_space(street):
    proxy = street("space_rate=20")
    peer = connect(proxy.port)
    refused = flood([peer], 20)
    assert refused.get("retry-after") == "1"
    assert ask(connect(proxy.port, "127.0.0.2")).status == 429  # whoever asks
    for _ in range(50):
        assert ask(peer, "b.test").status == 200
    assert ask(peer, "nobody.test").status == 404


def test_of_all_workers_together(street):
    proxy = street("client_rate=20", workers=4)
    flood([connect(proxy.port) for _ in range(32)], 20)


def test_a_body_behind_a_refusal(street):
    """The connection is closed: its rest must not be taken for a request."""
    proxy = street("client_rate=1")
    peer = connect(proxy.port)
    flood([peer], 1)
    peer.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nGET / HTTP/1.1\r\nHost: b.test\r\n\r\n")
    answer = peer.message()
    assert answer.status == 429 and answer.get("connection") == "close"
    assert peer.rest() == b""


# --- the daemon

def test_one_space_of_a_daemon(start_spaced, repo):
    spaced = start_spaced(space_rate="1000")
    for name in ("one", "two"):
        spaced.push_ok(repo(files=static_files(name)), "alice", name)
        spaced.wait_stage("alice", name, "RUNNING")
    assert spaced.show("alice", "one")["spaced"]["rate"] == {"perSecond": 1000, "own": False, "summary": "1000 per second, the host's"}

    # the operator's word, not the owner's
    denied = spaced.request("POST", "/api/spaces/alice/one/rate", body=json.dumps({"rate": "none"}),
                            headers={"Authorization": f"Bearer {spaced.token('alice')}", "Content-Type": "application/json"})
    assert denied.status == 403
    for wrong in ("0", "-1", "1.5", "x", "1000001", ""):
        assert spaced.spacectl("space", "rate", "--", "alice/one", wrong)[0] == 1, wrong

    _, out, _ = spaced.spacectl("space", "rate", "alice/one", "2", check=True)
    assert out == "alice/one: requests: 2 per second\n"
    assert "2 per second" in spaced.spacectl("space", "show", "alice/one", check=True)[1]
    host = spaced.host("alice", "one")
    peers = [connect(spaced.port) for _ in range(4)]  # over the proxies
    wait_for("the route", lambda: ask(peers[0], host).status == 429, interval=0)
    assert ask(peers[0], spaced.host("alice", "two")).status == 200
    line = wait_for("the line", lambda: [x for x in map(json.loads, spaced.spacectl("access-log", "alice/one", check=True)[1].splitlines())
                                         if x.get("refused") == "space-rate"])[0]
    assert line["status"] == 429 and line["host"] == host

    spaced.spacectl("space", "rate", "alice/one", "none", check=True)
    wait_for("the route", lambda: ask(peers[0], host).status == 200, interval=0.1)
    for _ in range(10):
        assert all(ask(peer, host).status == 200 for peer in peers)
    spaced.spacectl("space", "rate", "alice/one", "3", check=True)
    spaced.restart()
    assert spaced.show("alice", "one")["spaced"]["rate"]["perSecond"] == 3
    peers = [connect(spaced.port) for _ in range(4)]
    flood(peers, 3, host)
    spaced.spacectl("space", "rate", "alice/one", "default", check=True)
    assert spaced.show("alice", "one")["spaced"]["rate"]["own"] is False


def test_clients_of_a_daemon(start_spaced, repo):
    spaced = start_spaced(client_rate="20", proxies="3", client_connections="40")
    spaced.push_ok(repo(files=static_files()), "alice", "one")
    host = spaced.host("alice", "one")
    flood([connect(spaced.port, "127.0.0.9") for _ in range(30)], 20, host)
    assert ask(connect(spaced.port, "127.0.0.10"), host).status == 200
    many = [connect(spaced.port, "127.0.0.11") for _ in range(121)]  # more than 40 at one of the three, at least

    def refused():
        for peer in many:
            peer.sock.settimeout(0)
            try:
                if peer.sock.recv(100).startswith(b"HTTP/1.1 429 "):
                    return True
            except BlockingIOError:
                pass

    wait_for("a connection too many", refused)
