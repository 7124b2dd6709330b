"""The stand-alone proxy before several upstreams: spread, stickiness across its processes, a bad line in the file."""
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from harness import BUILD, free_port, wait_for
from proxyraw import PATIENCE, App, Proxy, get, says


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
        wait_for("both workers to read them again", lambda: Path(proxy.log.name).read_text().count("routes from") == 4)
        assert all(ask(proxy).body != b"0" for _ in range(20))
        for body in (b"1", b"2"):
            for _ in range(20):
                answer = ask(proxy, f"Cookie: {cookies[body]}")
                assert answer.body == body and answer.get("set-cookie") is None
        assert ask(proxy, f"Cookie: {cookies[b'0']}").get("set-cookie") in [f"{c}; Path=/; HttpOnly; SameSite=Lax"
                                                                            for c in cookies.values()]
    finally:
        proxy.close()


EXPECTED = "expected HOST ADDR:PORT... [sticky]"


@pytest.mark.parametrize("lines, says", [
    ("a.test", f"1: {EXPECTED}"),
    ("a.test sticky", f"1: {EXPECTED}"),
    ("a.test sticky 127.0.0.1:1", f"1: {EXPECTED}"),
    ("a.test 127.0.0.1", f"1: {EXPECTED}"),
    ("a.test localhost:1", "names are not looked up"),
    ("a.test 127.0.0.1:0", "names are not looked up"),
    ("a.test [::1:80", "names are not looked up"),
    ("a.test 127.0.0.1:1 unix:/x", "1: the upstreams of a host are all addresses or all unix sockets"),
    ("a.test " + "127.0.0.1:1 " * 17, "1: too many upstreams"),
    ("a.test:80 127.0.0.1:1", "1: expected HOST ADDR:PORT... [sticky], where HOST has no port"),
    ("[::1]:80 127.0.0.1:1", "1: expected HOST ADDR:PORT... [sticky], where HOST has no port"),
    ("a.test 127.0.0.1:1\n\0\nb.test 127.0.0.1:1", "Invalid or incomplete multibyte"),
    ("a.test 127.0.0.1:1\nA.test. [::1]:1", "2: this host has a route already"),
])
def test_lines_that_are_refused(tmp_path, lines, says):
    (tmp_path / "routes").write_text(lines + "\n")
    done = subprocess.run([BUILD / "proxy", "--listen", f"127.0.0.1:{free_port()}", "--routes", tmp_path / "routes"],
                          capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1 and "routes:" in done.stderr and says in done.stderr, done.stderr


def test_routes_out_of_a_pipe(tmp_path):
    """Each worker reads them: all but one would have none."""
    done = subprocess.run([BUILD / "proxy", "--listen", f"127.0.0.1:{free_port()}", "--routes", "/dev/stdin", "--workers", "2"],
                          input="a.test 127.0.0.1:1\n", capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1 and "/dev/stdin: a pipe can be read only once" in done.stderr, done.stderr


@pytest.mark.parametrize("args, status, says", [
    (["--listen", "[:80", "--routes", "/none"], 1, "listen on [:80: Invalid argument"),
    (["--listen", "[]:80", "--routes", "/none"], 1, "listen on []:80: Invalid argument"),
    (["--listen", "127.0.0.1:99999", "--routes", "/none"], 1, "listen on 127.0.0.1:99999: Invalid argument"),
    (["--listen", "127.0.0.1:0", "--routes", "/none"], 1, "listen on 127.0.0.1:0: Invalid argument"),
    (["--listen", "::1:8080", "--routes", "/none"], 1, "listen on ::1:8080: Invalid argument"),
    (["--listen", "127.0.0.1:80"], 2, "--listen ADDR:PORT and --routes FILE are needed"),
    (["--workers", "2x"], 2, "--workers 2x: expected 1 to 256"),
    (["--workers", "257"], 2, "--workers 257: expected 1 to 256"),
    (["--log-sample", "0"], 2, "--log-sample 0: expected at least 1"),
    (["--limit", "client_rate=1000001"], 2, "client_rate, space_rate: expected at most 1000000"),
    (["--limit", "fields=257"], 2, "fields: expected at most 256"),
    (["--limit", "idle_ms=x"], 2, "unknown limit or value: idle_ms=x"),
    (["--user", "nobody-of-that-name"], 2, "--user nobody-of-that-name: there is no such user"),
    (["routes"], 2, "`routes` is no option"),
])
def test_command_lines_that_are_refused(args, status, says):
    done = subprocess.run([BUILD / "proxy", *args], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == status and says in done.stderr, done.stderr


def test_the_port_of_another_proxy_is_taken(three, tmp_path):
    """Sockets that share a port would let both have a part of the visitors."""
    proxy = Proxy(tmp_path, {"a.test": upstreams(three)}, workers=2)
    try:
        done = subprocess.run([BUILD / "proxy", "--listen", f"127.0.0.1:{proxy.port}", "--routes", proxy.file],
                              capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 1 and "Address already in use" in done.stderr, done.stderr
    finally:
        proxy.close()
