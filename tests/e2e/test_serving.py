"""What lies between a visitor and an app: uploads, downloads, streams, WebSockets, forwarded headers, error pages."""
import asyncio
import hashlib
import http.client
import json
import socket
import time

import pytest
import websockets

from harness import EXAMPLES, Repo, wait_for


@pytest.fixture(scope="module")
def echo(spaced, tmp_path_factory):
    """The fastapi example; its own folder is its work tree."""
    work = Repo(tmp_path_factory.mktemp("echo") / "repo", source=EXAMPLES / "fastapi")
    spaced.push_ok(work, "alice", "echo", timeout=580)
    return spaced


@pytest.mark.deadline(900)
def test_upload_and_download(echo):
    block = bytes(range(256)) * 4096
    size = 64 * len(block)

    def body():
        for _ in range(64):
            yield block

    expected = hashlib.sha256(block * 64).hexdigest()
    for headers in ({"Content-Length": str(size)}, {}):  # without a length http.client sends chunks
        connection = http.client.HTTPConnection("127.0.0.1", echo.port, timeout=60)
        connection.request("POST", "/upload", body=body(), encode_chunked=not headers,
                           headers={"Host": echo.host("alice", "echo"),
                                    **(headers or {"Transfer-Encoding": "chunked"})})
        assert json.loads(connection.getresponse().read()) == {"bytes": size, "sha256": expected}
        connection.close()
    got = echo.get("alice", "echo", f"/download?size={size}")
    assert got.status == 200 and hashlib.sha256(got.body).hexdigest() == hashlib.sha256(
        (bytes(range(256)) * 256) * (size // 65536)).hexdigest()


def test_expect_100_continue(echo):
    with socket.create_connection(("127.0.0.1", echo.port), timeout=60) as s:
        s.sendall(f"POST /upload HTTP/1.1\r\nHost: {echo.host('alice', 'echo')}\r\nContent-Length: 5\r\n"
                  "Expect: 100-continue\r\nConnection: close\r\n\r\n".encode())
        assert b"100" in s.recv(100).split(b"\r\n")[0]
        s.sendall(b"hello")
        answer = b""
        while chunk := s.recv(4096):
            answer += chunk
    assert b'"bytes":5' in answer


def test_events_are_passed_at_once(echo):
    """The first event arrives while the app still sleeps before the next one: nothing waits for the end."""
    seconds = 20

    def first_comes_alone():
        since = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", echo.port, timeout=60)
        connection.request("GET", f"/ticks?n=3&ms={seconds * 1000}", headers={"Host": echo.host("alice", "echo"),
                                                                              "Accept": "text/event-stream"})
        answer = connection.getresponse()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        while not (line := answer.readline()).startswith(b"data:"):
            assert line, "it ended"
        connection.close()
        return time.monotonic() - since < seconds

    wait_for("the first event", first_comes_alone)

    connection = http.client.HTTPConnection("127.0.0.1", echo.port, timeout=60)
    connection.request("GET", "/ticks?n=3&ms=1", headers={"Host": echo.host("alice", "echo")})
    assert connection.getresponse().read().count(b"data:") == 3
    connection.close()


def test_websocket(echo):
    async def talk():
        url = f"ws://{echo.host('alice', 'echo')}:{echo.port}/ws"
        async with websockets.connect(url, open_timeout=60, max_size=None) as socket_:
            for message in ("hello", b"\x00" * 70000, "x" * 1_000_000, "ende"):
                await socket_.send(message)
                assert await asyncio.wait_for(socket_.recv(), 60) == message
            pong = await socket_.ping()
            await asyncio.wait_for(pong, 60)

        async def one(i):
            async with websockets.connect(url, open_timeout=60) as w:
                await w.send(str(i))
                return await asyncio.wait_for(w.recv(), 60)

        assert await asyncio.gather(*(one(i) for i in range(50))) == [str(i) for i in range(50)]

    asyncio.run(talk())


def test_forwarded_headers(echo):
    sent = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https", "X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6",
            "X-Spaced-Site": "evil", "X-Own": "kept"}
    got = dict(echo.get("alice", "echo", "/headers", headers=sent).json()["headers"])
    host = f"{echo.host('alice', 'echo')}:{echo.port}"
    assert got["host"] == host and got["x-own"] == "kept"
    assert got["x-forwarded-host"] == host and got["x-forwarded-proto"] == "http"
    assert got["x-forwarded-for"] == "127.0.0.1" and got["x-real-ip"] == "127.0.0.1"
    assert "x-spaced-site" not in got and "6.6.6.6" not in str(got)


def test_connections_are_kept_and_pipelining_keeps_order(echo):
    host = echo.host("alice", "echo")
    connection = http.client.HTTPConnection("127.0.0.1", echo.port, timeout=60)
    for _ in range(20):
        connection.request("GET", "/", headers={"Host": host})
        assert json.loads(connection.getresponse().read())["space"] == "alice/echo"
        assert connection.sock, "closed between requests"
    connection.close()
    with socket.create_connection(("127.0.0.1", echo.port), timeout=60) as s:
        one = f"GET /download?size=%d HTTP/1.1\r\nHost: {host}\r\n%s\r\n"
        s.sendall("".join(one % (n, "Connection: close\r\n" if n == 3 else "") for n in (1, 2, 3)).encode())
        answer = b""
        while chunk := s.recv(4096):
            answer += chunk
    assert answer.count(b"HTTP/1.1 200") == 3


def test_requests_that_are_refused(echo):
    host = echo.host("alice", "echo")
    for head, status in ((f"GET / HTTP/1.1\r\nHost: {host}\r\nHost: evil\r\n\r\n", b"400"),
                         ("GET / HTTP/1.1\r\n\r\n", b"400"),
                         (f"POST /upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                          b"400"),
                         (f"GET / HTTP/1.1\r\nHost: {host}\r\nX: {'y' * 100000}\r\n\r\n", b"431")):
        with socket.create_connection(("127.0.0.1", echo.port), timeout=60) as s:
            s.sendall(head.encode())
            answer = s.recv(4096)
        assert answer.split(b" ")[1] == status, (head[:80], answer[:200])


def test_api_on_the_apex(echo):
    listed = echo.request("GET", "/api/spaces").json()
    assert "alice/echo" in [space["id"] for space in listed]
    shown = echo.request("GET", "/api/spaces/alice/echo").json()
    assert shown["id"] == "alice/echo" and shown["runtime"]["stage"] == "RUNNING"
    assert echo.request("GET", "/api/whoami-v2").status == 401
    me = echo.request("GET", "/api/whoami-v2", headers={"Authorization": f"Bearer {echo.token()}"}).json()
    assert me["name"] == "alice"
    # As on the Hub: without a token a missing Space is not told apart from a private one.
    assert echo.request("GET", "/api/spaces/alice/none").status == 401
    assert echo.request("GET", "/api/spaces/alice/none", headers={"Authorization": f"Bearer {echo.token()}"}).status == 404


def test_spacectl(echo):
    assert "alice/echo" in echo.spacectl("space", "list", check=True)[1]
    shown = echo.show("alice", "echo")
    assert "RUNNING" in json.dumps(shown)
    builds = echo.ctl_json("build", "list", "alice/echo")
    assert builds and "succeeded" in json.dumps(builds)
    assert echo.spacectl("status")[0] == 0
    code, out, _ = echo.spacectl("doctor")
    assert code == 0
    for word in ("cgroup", "landlock", "python", "node", "uv", "egress"):
        assert word in out.lower(), out
    assert echo.spacectl("space", "show", "alice/none")[0] == 1
    assert echo.spacectl("nonsense")[0] == 2
    tokens = echo.spacectl("token", "list", "alice", check=True)[1]
    assert echo.token() not in tokens, "a token is shown once only"


def test_follow_a_log(echo):
    import subprocess
    from harness import BUILD
    follow = subprocess.Popen([str(BUILD / "spacectl"), "--state", str(echo.state), "space", "logs", "-f", "alice/echo"],
                              stdout=subprocess.PIPE, text=True)
    try:
        lines = []
        import threading
        threading.Thread(target=lambda: lines.extend(iter(follow.stdout.readline, "")), daemon=True).start()
        wait_for("what was logged before", lambda: any("running on" in l.lower() for l in lines))
        echo.get("alice", "echo", "/follow-me")
        wait_for("the new line", lambda: any("/follow-me" in l for l in lines))
    finally:
        follow.kill()
        follow.wait()
