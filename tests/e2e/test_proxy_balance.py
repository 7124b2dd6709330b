"""The stand-alone proxy before several upstreams: spread, stickiness across its processes, a bad line in the file."""
import signal
import socket
import subprocess

import pytest

from harness import BUILD, free_port, wait_for
from proxyraw import App, Proxy, get, says


@pytest.fixture
def three():
    # one answer a connection: none that is kept outlives its app
    apps = [App(says(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + str(i).encode(), wait=False)) for i in range(3)]
    yield apps
    for app in apps:
        app.close()


def upstreams(apps):
    return " ".join(f"127.0.0.1:{app.port}" for app in apps)


def ask(proxy, *fields):
    peer = proxy.connect()
    peer.send(get("/", *fields))
    answer = peer.message()
    peer.close()
    return answer


def test_spread_and_one_that_dies(three, tmp_path):
    proxy = Proxy(tmp_path, {"a.test": upstreams(three)})
    try:
        seen = [ask(proxy).body for _ in range(60)]
        assert set(seen) == {b"0", b"1", b"2"}
        three[1].listener.shutdown(socket.SHUT_RDWR)  # which wakes its accept()
        seen = [ask(proxy).body for _ in range(60)]
        assert set(seen) == {b"0", b"2"}
    finally:
        proxy.close()


def test_sticky_over_workers_and_reload(three, tmp_path):
    """Every worker knows every cookie, and a reading of the file anew changes none."""
    proxy = Proxy(tmp_path, {"a.test": upstreams(three) + " sticky"}, workers=2)
    try:
        cookies = {}
        for _ in range(60):
            answer = ask(proxy)
            cookie, _, attributes = answer.get("set-cookie").partition(";")
            assert attributes.split() == ["Path=/;", "HttpOnly;", "SameSite=Lax"]
            cookies[answer.body] = cookie
        assert len(cookies) == 3
        proxy.write({"a.test": upstreams(three[1:]) + " sticky"})
        proxy.process.send_signal(signal.SIGHUP)
        wait_for("the new routes", lambda: all(ask(proxy).body != b"0" for _ in range(20)))
        for body in (b"1", b"2"):
            for _ in range(20):
                answer = ask(proxy, f"Cookie: {cookies[body]}")
                assert answer.body == body and answer.get("set-cookie") is None
        assert ask(proxy, f"Cookie: {cookies[b'0']}").get("set-cookie") in [f"{c}; Path=/; HttpOnly; SameSite=Lax"
                                                                            for c in cookies.values()]
    finally:
        proxy.close()


@pytest.mark.parametrize("line", ["a.test", "a.test sticky", "a.test sticky 127.0.0.1:1", "a.test 127.0.0.1:1 unix:/x",
                                  "a.test " + "127.0.0.1:1 " * 17])
def test_lines_that_are_refused(tmp_path, line):
    (tmp_path / "routes").write_text(line + "\n")
    done = subprocess.run([BUILD / "proxy", "--listen", f"127.0.0.1:{free_port()}", "--routes", tmp_path / "routes"],
                          capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and "routes:1: expected HOST ADDR:PORT... [sticky]" in done.stderr
