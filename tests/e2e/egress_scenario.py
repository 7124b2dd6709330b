"""A daemon in an Internet of the test's own: what an app may reach by the operator's word, and what is counted. Run by
test_egress.py within tests/fake_internet; a failed assertion is its exit status."""
import sys
import tempfile
from pathlib import Path

from harness import Repo, Spaced, wait_for

APP = r"""
import json, os, socket, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
def reach(host, port):
    try:
        socket.create_connection((host, int(port)), 4).close()
        return "open"
    except OSError:
        return "closed"
def resolve(name):
    try:
        return socket.gethostbyname(name)
    except OSError:
        return "nothing"
def get(host, count):
    s = socket.create_connection((host, 80))
    began = time.monotonic()
    s.sendall(b"get %s\n" % count.encode())
    while s.recv(65536):
        pass
    return str(int(int(count) / (time.monotonic() - began)))
class H(BaseHTTPRequestHandler):
    def do_GET(self):
        what, *words = self.path[1:].split("/")
        body = (globals()[what](*words) if what in ("reach", "resolve", "get") else "hello").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), H).serve_forever()
"""
LIMIT = 4 << 20


def main(folder):
    daemon = Spaced(bandwidth=str(LIMIT))
    try:
        daemon.start()
        repo = Repo(folder / "repo", files={"Procfile": "web: python3 app.py\n", "app.py": APP})
        daemon.push_ok(repo, "alice", "out")

        def say(path):
            return daemon.get_ok("alice", "out", path).text

        def expect(path, what):  # who answers may be slow
            wait_for(f"{what} of {path}", lambda: say(path) == what)

        def own():
            return daemon.show("alice", "out")["spaced"]

        def restart():
            before = own()["live"]["instance"]
            daemon.spacectl("space", "restart", "alice/out", check=True)
            wait_for("another instance", lambda: own().get("live", {}).get("instance", before) != before)
            daemon.wait_stage("alice", "out", "RUNNING")

        def egress(*words):
            return daemon.spacectl("space", "egress", "alice/out", *words, check=True)[1]

        def counted(least):  # when the instance before has been stopped
            wait_for("its bytes to be counted", lambda: own()["traffic"]["received"] >= least)

        # the host's default
        assert own()["egress"] == {"policy": "internet", "own": False, "list": [], "summary": "internet (the host's)"}
        expect("/reach/198.51.100.10/81", "open")
        expect("/resolve/other.test", "198.51.100.11")

        def full_rate():
            rate = int(say(f"/get/198.51.100.10/{2 * LIMIT}"))
            assert rate < 1.2 * LIMIT, rate
            return rate > 0.3 * LIMIT
        wait_for("a rate near the limit", full_rate)
        counted(2 * LIMIT)  # of what still runs
        # a list of its own, from its next start on
        names = folder / "names"
        names.write_text("# data\nok.test:80\n")
        assert "from its next start on" in egress("list", str(names))
        expect("/reach/198.51.100.11/80", "open")
        restart()
        first = own()["traffic"]
        assert first["sent"] > 0
        assert own()["egress"]["list"] == ["ok.test:80"]
        for _ in range(2):  # the second time after a restart of the daemon, which adopts it
            assert say("/resolve/other.test") == "nothing"
            expect("/resolve/ok.test", "198.51.100.10")
            expect("/reach/ok.test/80", "open")
            assert say("/reach/198.51.100.10/81") == "closed"
            assert say("/reach/198.51.100.11/80") == "closed"
            assert own()["traffic"]["received"] >= first["received"]
            daemon.restart()
            daemon.wait_stage("alice", "out", "RUNNING")
        say("/get/198.51.100.10/1000000")
        egress("none")
        restart()
        counted(first["received"] + 1000000)
        assert say("/resolve/ok.test") == "nothing"
        assert say("/reach/198.51.100.10/80") == "closed"
        assert "internet (the host's)" in egress("default")
        restart()
        expect("/reach/198.51.100.10/81", "open")
        text = daemon.spacectl("space", "show", "alice/out", check=True)[1]
        assert "Egress" in text and "Received" in text and "Sent" in text
        # mistakes, and who may
        names.write_text("10.0.0.0/8\n")
        for words, status in [(("list", str(names)), 1), (("list",), 2), (("none", str(names)), 2), (("all",), 1)]:
            done = daemon.spacectl("space", "egress", "alice/out", *words)
            assert done[0] == status and done[2], (words, done)
        answer = daemon.request("POST", "/api/spaces/alice/out/egress", body=b'{"policy": "internet"}',
                                headers={"Authorization": "Bearer " + daemon.token("alice"), "Content-Type": "application/json"})
        assert answer.status == 403, answer.text
    finally:
        daemon.close()


with tempfile.TemporaryDirectory() as where:
    main(Path(where))
    sys.exit(0)
