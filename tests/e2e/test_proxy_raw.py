"""Requests and answers through the stand-alone proxy, byte for byte: what is refused, what is passed on, and how."""
import re
import socket
import threading

import pytest

from proxyraw import PATIENCE, App, H, Proxy, bench, get, holds, says  # noqa: F401 (bench is a fixture)


# Each of these is refused with the status, the connection is closed, and the app sees nothing at all.
REFUSED = {
    "CL.TE": (400, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"),
    "TE.CL": (400, b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n1\r\nG\r\n0\r\n\r\n"),
    "TE obscured": (400, b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: xchunked\r\n\r\n"),
    "TE tab": (400, b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding:\x0bchunked\r\n\r\n"),
    "TE space before colon": (400, b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding : chunked\r\n\r\n"),
    "TE twice": (400, b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "TE identity": (400, b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: identity\r\n\r\n"),
    "TE gzip, chunked": (400, b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
    "TE in 1.0": (400, b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n"),
    "TE folded": (400, b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding:\r\n chunked\r\n\r\n"),
    "CL twice": (400, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    "CL list": (400, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5, 5\r\n\r\nhello"),
    "CL plus": (400, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: +5\r\n\r\nhello"),
    "CL minus": (400, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: -5\r\n\r\nhello"),
    "CL hex": (400, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 0x5\r\n\r\nhello"),
    "CL empty": (400, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: \r\n\r\n"),
    "CL huge": (400, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 99999999999999999999\r\n\r\n"),
    "bare LF": (400, b"GET / HTTP/1.1\nHost: a.test\n\n"),
    "bare LF in a field": (400, b"GET / HTTP/1.1\r\n" + H + b"X: a\nTransfer-Encoding: chunked\r\n\r\n"),
    "bare CR": (400, b"GET / HTTP/1.1\r\n" + H + b"X:\rTransfer-Encoding: chunked\r\n\r\n"),
    "NUL": (400, b"GET / HTTP/1.1\r\n" + H + b"X: a\0b\r\n\r\n"),
    "folded": (400, b"GET / HTTP/1.1\r\n" + H + b"X: a\r\n b\r\n\r\n"),
    "empty name": (400, b"GET / HTTP/1.1\r\n" + H + b": a\r\n\r\n"),
    "no Host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two Hosts": (400, b"GET / HTTP/1.1\r\n" + H + H + b"\r\n"),
    "userinfo": (400, b"GET / HTTP/1.1\r\nHost: x@a.test\r\n\r\n"),
    "absolute disagrees": (400, b"GET http://b.test/ HTTP/1.1\r\n" + H + b"\r\n"),
    "two spaces": (400, b"GET  / HTTP/1.1\r\n" + H + b"\r\n"),
    "HTTP/0.9": (400, b"GET /\r\n\r\n"),
    "HTTP/1.2": (505, b"GET / HTTP/1.2\r\n" + H + b"\r\n"),
    "HTTP/2 preface": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "CONNECT": (405, b"CONNECT a.test:80 HTTP/1.1\r\n" + H + b"\r\n"),
    "TRACE": (405, b"TRACE / HTTP/1.1\r\n" + H + b"\r\n"),
    "unknown method": (501, b"BREW / HTTP/1.1\r\n" + H + b"\r\n"),
    "Connection: Host": (400, b"GET / HTTP/1.1\r\n" + H + b"Connection: close, Host\r\n\r\n"),
    "Connection: Cookie": (400, b"GET / HTTP/1.1\r\n" + H + b"Connection: Cookie\r\n\r\n"),
    "Connection: X-Forwarded-For": (400, b"GET / HTTP/1.1\r\n" + H + b"Connection: X-Forwarded-For\r\n\r\n"),
    "Expect other": (417, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 1\r\nExpect: 200-ok\r\n\r\n"),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "long URL": (414, b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + H + b"\r\n"),
    "many fields": (431, b"GET / HTTP/1.1\r\n" + H + b"A: b\r\n" * 150 + b"\r\n"),
    "long head": (431, b"GET / HTTP/1.1\r\n" + H + b"A: " + b"b" * 40000 + b"\r\n\r\n"),
}


@pytest.fixture(scope="module")
def refuser(tmp_path_factory):
    app = App()
    proxy = Proxy(tmp_path_factory.mktemp("refuser"), {"a.test": f"127.0.0.1:{app.port}"})
    yield app, proxy
    proxy.close()
    app.close()


@pytest.mark.parametrize("name", REFUSED)
def test_refused(refuser, name):
    app, proxy = refuser
    status, data = REFUSED[name]
    before = len(app.requests)
    peer = proxy.connect()
    peer.send(data)
    m = peer.message()
    assert m.status == status, (m.line, m.body)
    assert m.get("connection") == "close"
    assert peer.closed()
    assert len(app.requests) == before, "the app was reached"


def test_not_refused(refuser):
    """The positive control: requests of the same shape without the flaw pass."""
    _, proxy = refuser
    for data in (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\nhello",
                 b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                 b"GET http://a.test/ HTTP/1.1\r\n" + H + b"X:a\r\nY:\t b \r\nZ:\r\n\r\n",
                 b"GET /" + b"a" * 8000 + b" HTTP/1.1\r\n" + H + b"\r\n",
                 b"GET / HTTP/1.1\r\n" + H + b"A: b\r\n" * 99 + b"\r\n",
                 b"GET / HTTP/1.1\r\n" + H + b"A: " + b"b" * 30000 + b"\r\n\r\n"):
        assert proxy.ask(data).status == 200, data[:200]


def test_plain(bench):
    app, proxy = bench()
    m = proxy.ask(get("/x?y=%20"))
    assert (m.status, m.body) == (200, b"/x?y=%20")
    assert m.get("connection") is None and m.get("date") and m.get("x-request-id")
    r = app.requests[0]
    assert r.line == "GET /x?y=%20 HTTP/1.1"
    assert r.get("host") == "a.test"


def test_forwarding_fields(bench):
    app, proxy = bench()
    proxy.ask(get("/", "X-Forwarded-For: 6.6.6.6", "X-Real-IP: 6.6.6.6", "Forwarded: for=6.6.6.6", "X-Spaced-Site: other",
                  "X-Forwarded-Proto: https", "X_Forwarded_For: 6.6.6.6", "Content_Length: 5", "X-Keep: yes",
                  "Proxy-Authorization: Basic eA==", "TE: trailers", "Keep-Alive: 5", "Connection: X-Hop, keep-alive",
                  "X-Hop: gone", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__", host="A.Test.:8080"))
    r = app.requests[0]
    assert r.get("x-forwarded-for") == "127.0.0.1" and r.get("x-real-ip") == "127.0.0.1"
    assert r.get("x-forwarded-proto") == "http" and r.get("x-forwarded-host") == "A.Test.:8080"
    assert r.get("x-forwarded-port") == "8080" and r.get("host") == "A.Test.:8080"
    assert r.get("forwarded") == 'for=127.0.0.1;host="A.Test.:8080";proto=http'
    assert re.fullmatch("[0-9a-f]{32}", r.get("x-request-id"))
    assert r.get("x-keep") == "yes"
    for gone in ("x-spaced-site", "x_forwarded_for", "content_length", "proxy-authorization", "te", "keep-alive", "x-hop",
                 "upgrade", "http2-settings", "connection"):
        assert r.get(gone) is None, gone


def test_request_id_is_kept(bench):
    app, proxy = bench()
    m = proxy.ask(get("/", "X-Request-Id: abc-1"))
    assert app.requests[0].get("x-request-id") == "abc-1" and m.get("x-request-id") == "abc-1"
    proxy.ask(get("/", "X-Request-Id: a b\t<x>"))
    assert re.fullmatch("[0-9a-f]{32}", app.requests[1].get("x-request-id"))


def test_absolute_form(bench):
    app, proxy = bench()
    assert proxy.ask(b"GET http://a.test/p?q HTTP/1.1\r\n" + H + b"\r\n").body == b"/p?q"
    assert app.requests[0].line == "GET /p?q HTTP/1.1"


def test_options_star(bench):
    app, proxy = bench()
    assert proxy.ask(get("*", method="OPTIONS")).status == 200
    assert app.requests[0].line == "OPTIONS * HTTP/1.1"


def test_one_empty_line_before_a_request(bench):
    _, proxy = bench()
    assert proxy.ask(b"\r\n" + get("/a")).body == b"/a"
    assert proxy.ask(b"\r\n\r\n" + get("/a")).status == 400


def test_head_byte_by_byte(bench):
    app, proxy = bench()
    peer = proxy.connect()
    for b in get("/slow", "X-A: b"):
        peer.send(bytes([b]))
    assert peer.message().body == b"/slow"
    assert app.requests[0].get("x-a") == "b"


def test_keep_alive_reuses_one_upstream_connection(bench):
    app, proxy = bench()
    peer = proxy.connect()

    def one_does():
        before = app.connections
        for i in range(20):
            peer.send(get(f"/{i}"))
            assert peer.message().body == b"/%d" % i
        assert proxy.ask(get("/other")).body == b"/other"
        return app.connections <= before + 1

    assert holds(one_does)


def test_http10(bench):
    app, proxy = bench()
    peer = proxy.connect()
    peer.send(get("/", version="1.0"))
    m = peer.message()
    assert m.status == 200 and m.get("connection") == "close" and peer.closed()
    peer = proxy.connect()
    for _ in range(2):
        peer.send(get("/", "Connection: keep-alive", version="1.0"))
        assert peer.message().get("connection") == "keep-alive"
    assert app.requests[0].line == "GET / HTTP/1.1"


def test_connection_close(bench):
    _, proxy = bench()
    peer = proxy.connect()
    peer.send(get("/", "Connection: close") + get("/never"))
    m = peer.message()
    assert m.get("connection") == "close" and m.body == b"/"
    assert peer.closed()


def test_pipelining_in_order(bench):
    app, proxy = bench()
    peer = proxy.connect()
    peer.send(b"".join(get(f"/{i}") for i in range(50)) + get("/p", "Content-Length: 3", method="POST") + b"xyz" + get("/z"))
    for i in range(50):
        assert peer.message().body == b"/%d" % i
    assert peer.message().body == b"xyz"
    assert peer.message().body == b"/z"
    assert app.connections == 1, "depth 1: one after the other"


def test_pipelined_refusals(bench):
    _, proxy = bench()
    peer = proxy.connect()
    peer.send(get("/", host="nobody.test") * 2000)
    for _ in range(2000):
        assert peer.message().status == 404


def test_content_length_body(bench):
    app, proxy = bench()
    m = proxy.ask(get("/", "Content-Length: 5", method="POST") + b"hello")
    assert m.body == b"hello" and app.requests[0].get("content-length") == "5"
    m = proxy.ask(get("/", "Content-Length: 0", method="POST"))
    assert app.requests[1].get("content-length") == "0"


def test_chunked_both_ways(bench):
    def handler(peer, app):
        while True:
            app.record(peer.message())
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n")
            peer.send(b"3;name=\"v\"\r\nabc\r\n2\r\nde\r\n0\r\nX-T: v\r\n\r\n")

    app, proxy = bench(handler)
    peer = proxy.connect()

    def on_one_connection():
        before = app.connections
        for _ in range(2):
            peer.send(get("/", "Transfer-Encoding: chunked", method="POST"))
            peer.send(b"5;ext=1\r\nhello\r\n" + b"1\r\n!\r\n" * 200 + b"000\r\nTrailer-Field: x\r\n\r\n")
            m = peer.message()
            assert m.body == b"abcde" and m.get("trailer") is None
        return app.connections <= before + 1

    assert holds(on_one_connection)
    for r in app.requests:
        assert r.get("transfer-encoding") == "chunked" and r.get("content-length") is None
        assert r.body == b"hello" + b"!" * 200


BAD_CHUNKS = {
    "size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "negative": b"-5\r\nhello\r\n0\r\n\r\n",
    "space after size": b"5 \r\nhello\r\n0\r\n\r\n",
    "no CRLF after data": b"5\r\nhelloX0\r\n\r\n",
    "bare LF": b"5\nhello\n0\n\n",
    "overflow": b"FFFFFFFFFFFFFFFFF\r\nx",
    "CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "long extension": b"5;" + b"a" * 400 + b"\r\nhello\r\n0\r\n\r\n",
    "endless zeros": b"0" * 20000 + b"5\r\nhello\r\n0\r\n\r\n",
    "endless trailers": b"0\r\n" + b"A: b\r\n" * 3000 + b"\r\n",
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_bad_chunks(bench, name):
    def handler(peer, app):
        app.record(peer.message())
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    app, proxy = bench(handler)
    peer = proxy.connect()
    peer.send(get("/", "Transfer-Encoding: chunked", method="POST") + BAD_CHUNKS[name])
    m = peer.message()
    assert m.status == 400 and m.get("connection") == "close"
    peer.rest()
    assert app.requests == [], "the app got a whole request"


def test_expect_continue_is_answered_here(bench):
    app, proxy = bench()
    peer = proxy.connect()
    peer.send(get("/", "Content-Length: 5", "Expect: 100-continue", method="PUT"))
    assert peer.message().status == 100
    peer.send(b"hello")
    assert peer.message().body == b"hello"
    assert app.requests[0].get("expect") is None


def test_expect_continue_not_for_an_unknown_host(bench):
    _, proxy = bench()
    peer = proxy.connect()
    peer.send(get("/", "Content-Length: 5", "Expect: 100-continue", method="PUT", host="x.test"))
    m = peer.message()
    assert m.status == 404 and m.get("connection") == "close"


@pytest.mark.parametrize("response", [b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
                                      b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"])
def test_no_body_by_status(bench, response):
    app, proxy = bench(says(response))
    peer = proxy.connect()

    def on_one_connection():
        before = app.connections
        for _ in range(3):
            peer.send(get("/"))
            assert peer.message().status == int(response[9:12])
        return app.connections <= before + 1

    assert holds(on_one_connection)


def test_head_has_no_body(bench):
    app, proxy = bench()
    peer = proxy.connect()

    def on_one_connection():
        before = app.connections
        for _ in range(3):
            peer.send(get("/abc", method="HEAD"))
            m = peer.message(head_only=True)
            assert m.get("content-length") == "4"
        return app.connections <= before + 1

    assert holds(on_one_connection)


def test_interim_responses_are_skipped(bench):
    data = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    _, proxy = bench(says(data))
    peer = proxy.connect()
    for _ in range(2):
        peer.send(get("/"))
        m = peer.message()
        assert m.status == 200 and m.body == b"ok"


BAD_RESPONSES = {
    "CL and TE": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "CL twice": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "101 unasked": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "endless 1xx": b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
    "folded": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "bare CR": b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "NUL": b"HTTP/1.1 200 OK\r\nX: a\0\r\nContent-Length: 0\r\n\r\n",
    "no HTTP": b"hello there, this is no HTTP\r\n\r\n",
    "status 99": b"HTTP/1.1 099 No\r\n\r\n",
    "status 999": b"HTTP/1.1 999 No\r\n\r\n",
    "long head": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100000 + b"\r\n\r\n",
    "first chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
}


@pytest.mark.parametrize("name", BAD_RESPONSES)
def test_bad_response(bench, name):
    _, proxy = bench(says(BAD_RESPONSES[name], wait=False))
    m = proxy.ask(get("/", "Accept: application/json"))
    assert m.status == 502
    assert b'"status":502' in m.body and m.get("content-type").startswith("application/json")


@pytest.mark.parametrize("data", [b"\0\0\x12\x04\0\0\0\0\0", b"SSH-2.0-x", b"HTTP/2 200", b"h", b"HTTP/1.1 100 Continue\r\n\r\nhi"])
def test_what_is_no_http_is_not_waited_for(bench, data):
    def speaks(peer, app):
        peer.message()
        peer.send(data)
        peer.rest()

    _, proxy = bench(speaks)
    assert proxy.ask(get("/")).status == 502


def test_truncated_response_is_seen(bench):
    _, proxy = bench(says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", wait=False))
    peer = proxy.connect()
    peer.send(get("/"))
    with pytest.raises((EOFError, ConnectionResetError)):
        peer.message()


def test_truncated_chunked_response_is_seen(bench):
    _, proxy = bench(says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", wait=False))
    peer = proxy.connect()
    peer.send(get("/"))
    with pytest.raises((EOFError, ConnectionResetError)):
        peer.message()


def test_what_came_before_a_bad_chunk_arrives(bench):
    def app(peer, _):
        peer.message()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        arrived.wait(PATIENCE)
        peer.send(b"x\r\n")
        peer.rest()

    arrived = threading.Event()
    _, proxy = bench(app)
    peer = proxy.connect()
    peer.send(get("/"))
    assert peer.until(b"abc\r\n").startswith(b"HTTP/1.1 200 ")
    arrived.set()
    assert peer.sock.recv(1) == b""  # an end, not a reset


def test_response_until_close(bench):
    app, proxy = bench(says(b"HTTP/1.0 200 OK\r\n\r\nall of it", wait=False))
    peer = proxy.connect()
    for _ in range(2):
        peer.send(get("/"))
        m = peer.message()
        assert m.get("transfer-encoding") == "chunked" and m.body == b"all of it"
    assert app.connections == 2
    m = proxy.ask(get("/", version="1.0"))
    assert m.get("transfer-encoding") is None and m.body == b"all of it"


def test_extra_bytes_end_the_upstream_connection(bench):
    """Response queue poisoning: what comes behind a response is never the next one."""
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    app, proxy = bench(says(evil))
    peer = proxy.connect()
    for _ in range(5):
        peer.send(get("/"))
        assert peer.message().body == b"ok"
    assert app.connections == 5


def test_stale_connection_is_retried_for_get_only(bench):
    """The app closes a kept connection when the next request arrives on it."""

    def handler(peer, app):
        app.record(peer.message())
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        peer.until(b"\r\n\r\n")  # takes the next request and hangs up

    app, proxy = bench(handler)

    def a_post_is_not():
        peer = proxy.connect()
        for _ in range(3):
            peer.send(get("/"))
            assert peer.message().body == b"ok"
        peer.send(get("/", "Content-Length: 1", method="POST") + b"x")
        return peer.message().status == 502

    assert holds(a_post_is_not)


def test_no_retry_after_a_byte_of_response(bench):
    def handler(peer, app):
        app.record(peer.message())
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        app.record(peer.message())
        peer.send(b"HTTP/1.1 2")

    def is_not_retried():
        app, proxy = bench(handler)
        peer = proxy.connect()
        peer.send(get("/"))
        assert peer.message().body == b"ok"
        peer.send(get("/"))
        return peer.message().status == 502 and len(app.requests) == 2

    assert holds(is_not_retried)


def test_early_response_closes_both(bench):
    def handler(peer, app):
        app.record(peer.message(head_only=True))
        peer.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
        app.rest = peer.rest()

    app, proxy = bench(handler)

    def stays_readable():
        peer = proxy.connect()
        peer.send(get("/", "Content-Length: 1000000000", method="POST") + b"x" * 1000)
        m = peer.message()
        assert m.status == 413 and m.body == b"big" and m.get("connection") == "close"
        try:
            peer.send(b"y" * 100)
            peer.sock.shutdown(socket.SHUT_WR)
            return peer.sock.recv(1) == b""
        except OSError:  # it was reset
            return False

    assert holds(stays_readable)


def test_connections_are_not_shared_between_hosts(tmp_path):
    apps = {host: App() for host in ("a.test", "b.test")}
    proxy = Proxy(tmp_path, {host: f"127.0.0.1:{app.port}" for host, app in apps.items()})
    try:
        peer = proxy.connect()

        def each_has_one():
            before = {host: app.connections for host, app in apps.items()}
            for i in range(20):
                host = "ab"[i % 2] + ".test"
                peer.send(get(f"/{i}", host=host))
                assert peer.message().body == b"/%d" % i
            return all(app.connections <= before[host] + 1 for host, app in apps.items())

        assert holds(each_has_one)
        for host, app in apps.items():
            assert len(app.requests) >= 10 and {r.get("host") for r in app.requests} == {host}
    finally:
        proxy.close()
        for app in apps.values():
            app.close()
