"""Requests per second: of a client address and for a Space, with raw sockets; 429 with Retry-After, and nobody else feels it."""
import itertools
import json
import select
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


def flood(ways, rate):
    """Asks in each of these ways (peer, host, status) in turn until 429, and checks that it came neither too early nor too late, so that
    all of them are counted as one; the refusal."""
    since = time.monotonic()
    n = 0
    for peer, host, status in itertools.cycle(ways):
        answer = ask(peer, host)
        seconds = time.monotonic() - since
        assert n <= BURST_S * rate + rate * (seconds + 0.5) + 1
        if answer.status == 429:
            assert n >= BURST_S * rate
            return answer
        assert answer.status == status
        n += 1


def test_of_a_client(street):
    proxy = street("client_rate=20")
    peer, other = connect(proxy.port), connect(proxy.port)  # another connection is no other client, nor is another Space
    refused = flood([(peer, "a.test", 200), (other, "a.test", 200), (peer, "b.test", 200), (peer, "nobody.test", 404)], 20)
    assert refused.get("retry-after") == "1"
    assert ask(connect(proxy.port, "127.0.0.2")).status == 200
    wait_for("the connection to be of use again", lambda: ask(peer).status == 200, interval=0.1)


def test_for_a_space(street):
    proxy = street("space_rate=20")
    peer = connect(proxy.port)
    refused = flood([(peer, "a.test", 200), (connect(proxy.port, "127.0.0.2"), "a.test", 200)], 20)  # whoever asks
    assert refused.get("retry-after") == "1"
    for _ in range(50):
        assert ask(peer, "b.test").status == 200
    assert ask(peer, "nobody.test").status == 404


def test_of_all_workers_together(street):
    proxy = street("client_rate=20", workers=4)
    flood([(connect(proxy.port), "a.test", 200) for _ in range(32)], 20)


def test_a_body_behind_a_refusal(street):
    """The connection is closed: its rest must not be taken for a request."""
    proxy = street("client_rate=1")

    def refused():
        """Unless its turn has come again between the flood and it: then the app waits for the rest, and so do we, in vain."""
        peer = connect(proxy.port)
        flood([(peer, "a.test", 200)], 1)
        peer.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nGET / HTTP/1.1\r\nHost: b.test\r\n\r\n")
        return peer if select.select([peer.sock], [], [], 3)[0] else None

    peer = wait_for("a refusal", refused)
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
    peer = connect(spaced.port)
    wait_for("the route", lambda: ask(peer, host).status == 429, interval=0)
    assert ask(peer, spaced.host("alice", "two")).status == 200
    line = wait_for("the line", lambda: [x for x in map(json.loads, spaced.spacectl("access-log", "alice/one", check=True)[1].splitlines())
                                         if x.get("refused") == "space-rate"])[0]
    assert line["status"] == 429 and line["host"] == host

    spaced.spacectl("space", "rate", "alice/one", "none", check=True)
    peers = [connect(spaced.port) for _ in range(4)]  # over the proxies
    # At each proxy: more than a bucket of 2 per second holds.
    wait_for("the route", lambda: all(ask(peer, host).status == 200 for _ in range(20) for peer in peers), interval=0.1)
    spaced.spacectl("space", "rate", "alice/one", "3", check=True)
    spaced.restart()
    assert spaced.show("alice", "one")["spaced"]["rate"]["perSecond"] == 3
    peers = [connect(spaced.port) for _ in range(4)]
    flood([(peer, host, 200) for peer in peers], 3)
    spaced.spacectl("space", "rate", "alice/one", "default", check=True)
    assert spaced.show("alice", "one")["spaced"]["rate"]["own"] is False


def test_strangers_use_up_nothing_of_a_private_space(start_spaced, repo):
    spaced = start_spaced(space_rate="3", proxies="1")
    spaced.push_ok(repo(files=static_files("mine")), "alice", "one")
    spaced.spacectl("space", "visibility", "alice/one", "private", check=True)
    peer, host = connect(spaced.port), spaced.host("alice", "one")
    wait_for("the route", lambda: ask(peer, host).status == 401, interval=0.1)
    assert all(ask(peer, host).status == 401 for _ in range(10 * BURST_S))

    def own():
        peer.send(get("/", f"Authorization: Bearer {spaced.token()}", host=host))
        return peer.message()

    wait_for("her own", lambda: own().body == b"mine")  # unless it was asked for too often until it was private
    wait_for("her own to be too many", lambda: own().status == 429, interval=0)
    assert ask(peer, host).status == 401  # and a stranger does not learn of it


def test_clients_of_a_daemon(start_spaced, repo):
    spaced = start_spaced(client_rate="20", proxies="3", client_connections="40")
    spaced.push_ok(repo(files=static_files()), "alice", "one")
    host = spaced.host("alice", "one")
    flood([(connect(spaced.port, "127.0.0.9"), host, 200) for _ in range(30)], 20)
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
