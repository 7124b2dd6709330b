"""A deploy under traffic: what is in flight stays with the version before, new requests meet the new one, none fails."""
import base64
import http.client
import os
import socket
import threading
import time

import pytest

from harness import wait_for

# Answers with its version in every way that takes time: a body that it reads to its end, events, a WebSocket (frames below
# 126 bytes are all that the test sends).
APP = '''
import base64, hashlib, os, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
VERSION = "{version}"
class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == "/events":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            while True:
                self.wfile.write(f"data: {VERSION}\\n\\n".encode())
                time.sleep(0.05)
        elif self.headers.get("Upgrade"):
            self.websocket()
        else:
            self.answer(VERSION)
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(VERSION)
    def websocket(self):
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        while head := self.rfile.read(2):
            self.rfile.read(4 + (head[1] & 127))
            self.wfile.write(bytes([0x81, len(VERSION)]) + VERSION.encode())
        self.close_connection = True
    def log_message(self, *a): pass
ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), H).serve_forever()
'''


def files(version):
    return {"Procfile": "web: python3 app.py\n", "app.py": APP.replace("{version}", version)}


def deploy(daemon, work, version, name="deploy"):
    work.commit(version, files(version))
    daemon.push_ok(work, "alice", name)


class Flight:
    """One connection to the Space, in the middle of something."""

    def __init__(self, daemon, head, host):
        self.s = socket.create_connection(("127.0.0.1", daemon.port), timeout=60)
        self.s.sendall(f"{head} HTTP/1.1\r\nHost: {host}\r\n".encode())
        self.got = b""

    def until(self, mark):
        while mark not in self.got:
            data = self.s.recv(65536)
            assert data, f"the end came before {mark}: {self.got}"
            self.got += data
        self.got = self.got.partition(mark)[2]

    def closed(self):
        """Reads to the end; true when it is one, not a reset."""
        while True:
            try:
                if not self.s.recv(65536):
                    return True
            except ConnectionResetError:
                return False


def upload(daemon, host):
    f = Flight(daemon, "POST /", host)
    f.s.sendall(b"Content-Length: 10\r\n\r\nfive ")
    return f


def events(daemon, host):
    f = Flight(daemon, "GET /events", host)
    f.s.sendall(b"\r\n")
    f.until(b"text/event-stream")
    return f


def websocket(daemon, host):
    f = Flight(daemon, "GET /", host)
    key = base64.b64encode(os.urandom(16)).decode()
    f.s.sendall(f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
    f.until(b"\r\n\r\n")
    return f


def say(f):
    f.s.sendall(b"\x81\x82" + bytes(4) + b"hi")


class Visitors:
    """Requests one after another from several threads, each on a new or on a kept connection, all noted."""

    def __init__(self, daemon, host, n=4):
        self.daemon, self.host, self.ends, self.seen, self.bad = daemon, host, threading.Event(), [], []
        self.threads = [threading.Thread(target=self.run, args=(i % 2 == 0,)) for i in range(n)]
        for t in self.threads:
            t.start()

    def run(self, kept):
        connection = http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=60)
        while not self.ends.is_set():
            try:
                connection.request("GET", "/", headers={"Host": self.host})
                answer = connection.getresponse()
                body = answer.read().decode()
                (self.seen if answer.status == 200 else self.bad).append(body)
            except OSError as error:
                self.bad.append(repr(error))
            if not kept:
                connection.close()

    def end(self):
        self.ends.set()
        for t in self.threads:
            t.join()


@pytest.mark.deadline(300)
def test_what_is_in_flight_ends_on_the_version_before(start_spaced, repo):
    daemon = start_spaced(drain_timeout="10m")
    work = repo(files=files("one"))
    daemon.push_ok(work, "alice", "deploy")
    host, space = daemon.host("alice", "deploy"), daemon.show("alice", "deploy")["_id"]
    flights = up, ev, ws = upload(daemon, host), events(daemon, host), websocket(daemon, host)
    visitors = Visitors(daemon, host)
    try:
        wait_for("visitors of the old version", lambda: len(visitors.seen) > 20)
        deploy(daemon, work, "two")
        wait_for("visitors of the new version", lambda: "two" in visitors.seen[-1])
    finally:
        visitors.end()
    assert not visitors.bad, visitors.bad[:5]
    first = visitors.seen.index("two")
    assert "one" in visitors.seen[:first] and len(set(visitors.seen)) == 2
    assert daemon.get("alice", "deploy").text == "two"

    assert len(daemon.monitors(space)) == 2
    up.s.sendall(b"bytes")
    up.until(b"\r\n\r\none")
    ev.got = b""
    ev.until(b"data: one")
    say(ws)
    ws.until(b"one")
    # It ends after the last of them, long before the deadline.
    for f in flights:
        assert len(daemon.monitors(space)) == 2
        f.s.close()
    wait_for("the old instance to end", lambda: len(daemon.monitors(space)) == 1)
    assert daemon.get("alice", "deploy").text == "two"


@pytest.mark.deadline(300)
def test_a_new_control_lets_it_end_too(start_spaced, repo):
    """Control dies while the version before still has something in flight."""
    daemon = start_spaced(drain_timeout="10m")
    work = repo(files=files("one"))
    daemon.push_ok(work, "alice", "deploy")
    host, space = daemon.host("alice", "deploy"), daemon.show("alice", "deploy")["_id"]
    ws = websocket(daemon, host)
    deploy(daemon, work, "two")
    daemon.kill_role("control")
    wait_for("control", daemon.healthy)
    assert daemon.get("alice", "deploy").text == "two"
    assert len(daemon.monitors(space)) == 2
    say(ws)
    ws.until(b"one")
    ws.s.close()
    wait_for("the old instance to end", lambda: len(daemon.monitors(space)) == 1)
    assert daemon.get("alice", "deploy").text == "two"


@pytest.mark.deadline(300)
def test_the_drain_deadline(start_spaced, repo):
    daemon = start_spaced(drain_timeout="3s")
    work = repo(files=files("one"))
    daemon.push_ok(work, "alice", "deploy")
    host, space = daemon.host("alice", "deploy"), daemon.show("alice", "deploy")["_id"]
    up, ev, ws = upload(daemon, host), events(daemon, host), websocket(daemon, host)
    before = time.monotonic()
    deploy(daemon, work, "two")
    # Closed in order, not reset; what had no answer yet gets one.
    assert ws.closed()
    assert time.monotonic() - before > 3
    assert ev.closed()
    up.until(b"HTTP/1.1 503 ")
    wait_for("the old instance to end", lambda: len(daemon.monitors(space)) == 1)
    assert daemon.get("alice", "deploy").text == "two"
