"""WebSocket conformance through the proxy: an echo server and a client, both of wsproto (a protocol library that shares no code
with ours), say every kind of frame of RFC 6455 to each other; what is said on one side is heard on the other, frame for
frame. The tunnel is bytes to the proxy, so the frames prove that none is lost, doubled, held back or looked into."""
import os
import select
import socket
import threading

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (AcceptConnection, BytesMessage, CloseConnection, Ping, Pong, RejectConnection, Request, TextMessage)
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import RemoteProtocolError

from proxyraw import PATIENCE, bench, get  # noqa: F401 (bench is a fixture)


class End:
    """One end of a WebSocket over a socket."""

    def __init__(self, sock, kind):
        self.sock, self.ws, self.events = sock, WSConnection(kind), []
        sock.settimeout(PATIENCE)

    def send(self, *events):
        self.sock.sendall(b"".join(self.ws.send(e) for e in events))

    def event(self):
        while not self.events:
            data = self.sock.recv(1 << 18)
            self.ws.receive_data(data or None)
            self.events = list(self.ws.events())
            if not data:
                break
        return self.events.pop(0) if self.events else None

    def message(self):
        """A whole message and the number of pieces in which it came."""
        parts = []
        while True:
            e = self.event()
            assert isinstance(e, (TextMessage, BytesMessage)), e
            parts.append(e)
            if e.message_finished:
                data = [p.data for p in parts]
                return ("" if isinstance(data[0], str) else b"").join(data), parts


def echo(peer, app):
    """Says back each frame with its own opcode and FIN bit; answers pings and closes as the library does."""
    end = End(peer.sock, ConnectionType.SERVER)
    app.ends.append(end)
    while (e := end.event()) is not None:
        if isinstance(e, Request):
            app.record(e)
            if "nothing" in e.target:
                end.send(RejectConnection(status_code=403))
                return
            deflate = [PerMessageDeflate()] if e.extensions else []
            protocol = e.subprotocols[0] if e.subprotocols else None
            end.send(AcceptConnection(subprotocol=protocol, extensions=deflate))
        elif isinstance(e, (TextMessage, BytesMessage)):
            end.send(e)
        elif isinstance(e, Ping):
            end.send(e.response())
        elif isinstance(e, CloseConnection):
            app.closes.append((e.code, e.reason or ""))
            if end.ws.state is ConnectionState.REMOTE_CLOSING:
                end.send(e.response())
            return


@pytest.fixture
def pair(bench):
    app, proxy = bench(echo)
    app.ends, app.closes = [], []

    def connect(target="/ws", **kw):
        end = End(proxy.connect().sock, ConnectionType.CLIENT)
        end.send(Request(host="a.test", target=target, **kw))
        accepted = end.event()
        return end, accepted

    return app, proxy, connect


SIZES = [0, 1, 125, 126, 127, 128, 65535, 65536, 65537, 1 << 20]


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_messages(pair, size, deflate):
    _, _, connect = pair
    end, accepted = connect(extensions=[PerMessageDeflate()] if deflate else [])
    assert isinstance(accepted, AcceptConnection) and bool(accepted.extensions) == deflate
    data = os.urandom(size)
    end.send(BytesMessage(data=data))
    assert end.message()[0] == data
    text = "\u2603" * (size // 3)
    end.send(TextMessage(data=text))
    assert end.message()[0] == text


def test_sixteen_megabytes(pair):
    _, proxy, connect = pair
    end, _ = connect()
    data = os.urandom(16 << 20)
    sender = threading.Thread(target=end.sock.sendall, args=(end.ws.send(BytesMessage(data=data)),), daemon=True)
    sender.start()
    assert end.message()[0] == data
    sender.join(PATIENCE)
    assert proxy.memory("VmHWM") < 32 << 10


def test_fragments_and_control_frames_between_them(pair):
    _, _, connect = pair
    end, _ = connect()
    end.send(TextMessage(data="a", message_finished=False))
    assert end.event() == TextMessage(data="a", frame_finished=True, message_finished=False)
    end.send(Ping(payload=b"between"))
    assert end.event() == Pong(payload=b"between")
    end.send(TextMessage(data="", message_finished=False))
    end.send(TextMessage(data="\u2603", message_finished=True))
    rest, parts = end.message()
    assert rest == "\u2603" and len(parts) == 2


@pytest.mark.parametrize("payload", [b"", b"x", b"\x00\xff" * 62 + b"!"])
def test_ping(pair, payload):
    _, _, connect = pair
    end, _ = connect()
    end.send(Ping(payload=payload))
    assert end.event() == Pong(payload=payload)


def test_ping_of_the_app_and_unasked_pong(pair):
    app, _, connect = pair
    end, _ = connect()
    end.send(Pong(payload=b"nobody asked"), TextMessage(data="x"))
    assert end.message()[0] == "x"
    app.ends[0].send(Ping(payload=b"there?"))
    ping = end.event()
    assert ping == Ping(payload=b"there?")
    end.send(ping.response(), TextMessage(data="y"))
    assert end.message()[0] == "y"


@pytest.mark.parametrize("code,reason", [(1000, ""), (1000, "bye"), (1001, "going"), (1011, "r" * 123), (3000, "x"), (4999, "\u2603")])
def test_close_by_the_client(pair, code, reason):
    app, _, connect = pair
    end, _ = connect()
    end.send(CloseConnection(code=code, reason=reason))
    e = end.event()
    assert isinstance(e, CloseConnection) and e.code == code
    assert end.sock.recv(1) == b"", "the tunnel ends with the handshake"
    assert app.closes == [(code, reason)]


def test_close_by_the_app(pair):
    app, _, connect = pair
    end, _ = connect()
    end.send(TextMessage(data="x"))
    end.message()
    app.ends[0].send(CloseConnection(code=1012, reason="restart"))
    e = end.event()
    assert (e.code, e.reason) == (1012, "restart")
    end.send(e.response())
    assert end.sock.recv(1) == b""


def test_app_that_vanishes(pair):
    """A reset is passed on as an end: no close frame is invented."""
    app, _, connect = pair
    end, _ = connect()
    end.send(TextMessage(data="x"))
    end.message()
    app.ends[0].sock.shutdown(socket.SHUT_RDWR)
    e = end.event()
    assert isinstance(e, CloseConnection) and e.code == CloseReason.ABNORMAL_CLOSURE


def test_invalid_frames_are_the_ends_to_judge(pair):
    """A frame with a reserved opcode reaches the app, which fails the connection with 1002."""
    _, _, connect = pair
    end, _ = connect()
    end.sock.sendall(b"\x83\x80\0\0\0\0")
    with pytest.raises((RemoteProtocolError, AssertionError)):
        while (e := end.event()) is not None:
            assert not isinstance(e, (TextMessage, BytesMessage))
            if isinstance(e, CloseConnection):
                raise AssertionError(e.code)


def test_subprotocols_and_headers_pass(pair):
    app, _, connect = pair
    end, accepted = connect("/ws?q=1", subprotocols=["graphql-ws", "other"], extra_headers=[(b"Origin", b"http://a.test")])
    assert accepted.subprotocol == "graphql-ws"
    request = app.requests[0]
    assert request.target == "/ws?q=1" and request.subprotocols == ["graphql-ws", "other"]
    assert (b"origin", b"http://a.test") in [(k.lower(), v) for k, v in request.extra_headers]


def test_refused_by_the_app(pair):
    _, _, connect = pair
    end, answer = connect("/nothing")
    assert isinstance(answer, RejectConnection) and answer.status_code == 403


def test_version_is_for_the_app(bench):
    """RFC 6455 4.4: it may speak another version, or say 426 with those that it speaks."""

    def handler(peer, app):
        m = app.record(peer.message())
        assert m.get("sec-websocket-version") == "99"
        peer.send(b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n")

    _, proxy = bench(handler)
    m = proxy.ask(get("/", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 99",
                      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="))
    assert m.status == 426 and m.get("sec-websocket-version") == "13"


def test_many_messages_in_order(pair):
    _, _, connect = pair
    end, _ = connect()
    n = 2000
    sender = threading.Thread(target=lambda: [end.sock.sendall(end.ws.send(TextMessage(data=str(i)))) for i in range(n)], daemon=True)
    sender.start()
    got = []
    while len(got) < n:
        got.append(end.message()[0])
    assert got == [str(i) for i in range(n)]
    sender.join(PATIENCE)


def fill(socks):
    """Writes to all until the other sides have taken nothing for a second; how much each took."""
    totals = dict.fromkeys(socks, 0)
    while room := select.select([], socks, [], 1)[1]:
        for sock in room:  # blocking or not as it is: another thread reads from it
            totals[sock] += sock.send(b"\x82\x7f" + (1 << 20).to_bytes(8, "big") + b"x" * (1 << 20))
    return list(totals.values())


def test_slow_reader_holds_back_the_app(pair):
    app, proxy, connect = pair
    ends = [connect()[0] for _ in range(8)]
    for end in ends:
        end.send(TextMessage(data="x"))
        end.message()
    before = proxy.memory()
    totals = fill([e.sock for e in app.ends])
    assert all(0 < t < 64 << 20 for t in totals), totals
    assert proxy.memory() - before < 8 << 10, "at most one block per direction and tunnel"
    # A tunnel that reads goes on beside those that do not.
    other, _ = connect()
    other.send(TextMessage(data="still here"))
    assert other.message()[0] == "still here"
