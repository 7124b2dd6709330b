"""/metrics: read by Prometheus' own client library, and compared with what was asked of an app."""
import base64
import os
import socket

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse

from apps import static_files
from harness import wait_for

APP = '''
import base64, hashlib, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/ws":
            key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            self.send_header("Connection", "Upgrade")
            self.send_header("Upgrade", "websocket")
            self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
            self.end_headers()
            self.rfile.read()
            self.close_connection = True
            return
        self.send_response(int(self.path[1:] or 200))
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(b"x" * 100000)
    def log_message(self, *a): pass
ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), H).serve_forever()
'''
TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@pytest.fixture(scope="module")
def admin(spaced):
    code, _, err = spaced.spacectl("user", "add", "--admin", "root-of-metrics")
    assert code == 0, err
    token = spaced.spacectl("token", "add", "root-of-metrics", check=True)[1].strip()
    return {"Authorization": f"Bearer {token}"}


def scrape(spaced, admin):
    """{(name, labels): value} of one answer, which the parser has accepted whole."""
    answer = spaced.request("GET", "/metrics", headers=admin)
    assert answer.status == 200 and answer.headers["Content-Type"] == TYPE, answer.text
    families = list(parse(answer.text))
    assert len({f.name for f in families}) == len(families)
    for f in families:
        assert f.type != "unknown" and f.documentation, f.name
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


def of(series, name, space, **labels):
    return series.get((name, tuple(sorted({"space": space, **labels}.items()))), 0)


def test_only_for_admins(spaced):
    assert spaced.request("GET", "/metrics").status == 401
    token = {"Authorization": f"Bearer {spaced.token('alice')}"}
    assert spaced.request("GET", "/metrics", headers=token).status == 403


def test_head(spaced, admin):
    answer = spaced.request("HEAD", "/metrics", headers=admin)
    assert answer.status == 200 and answer.body == b"" and answer.headers["Content-Type"] == TYPE


def test_counts_are_exact(spaced, repo, admin):
    spaced.push_ok(repo(files={"Procfile": "web: python3 app.py\n", "app.py": APP}), "alice", "counted")
    spaced.wait_stage("alice", "counted", "RUNNING")
    before = scrape(spaced, admin)
    for path, n in {"/200": 3, "/404": 2, "/500": 1}.items():
        for _ in range(n):
            assert spaced.get("alice", "counted", path).status == int(path[1:])
    name = "alice/counted"

    after = {}

    def grown(metric, **labels):
        return of(after, metric, name, **labels) - of(before, metric, name, **labels)

    def settled():  # each proxy says its part
        after.update(scrape(spaced, admin))
        return grown("spaced_request_duration_seconds_count") >= 6

    wait_for("the counters", settled)

    assert [grown("spaced_requests_total", code=c) for c in ("2xx", "3xx", "4xx", "5xx")] == [3, 0, 2, 1]
    assert grown("spaced_request_duration_seconds_count") == 6
    assert grown("spaced_request_duration_seconds_bucket", le="+Inf") == 6
    assert 0 <= grown("spaced_request_duration_seconds_sum") < 60
    assert 600000 < grown("spaced_sent_bytes_total") < 610000
    assert 6 * 50 < grown("spaced_received_bytes_total") < 6000
    assert of(after, "spaced_requests_open", name) == 0
    assert after[("spaced_spaces", (("stage", "RUNNING"),))] >= 1
    assert after[("spaced_builds", (("state", "running"),))] == 0


def test_memory_and_cpu(spaced, admin):
    instance = spaced.show("alice", "counted")["spaced"]["live"]["instance"]  # who looks has it measured

    def measured():
        now = scrape(spaced, admin)
        return [of(now, name, "alice/counted", sandbox=instance) for name in ("spaced_space_memory_bytes", "spaced_space_cpu_seconds_total")]

    wait_for("its figures", lambda: all(measured()))
    assert 1 << 20 < measured()[0] < 1 << 31 and 0 < measured()[1] < 600


def test_websockets_that_are_open(spaced, admin):
    name = "alice/counted"
    with socket.create_connection(("127.0.0.1", spaced.port)) as s:
        key = base64.b64encode(os.urandom(16)).decode()
        s.sendall(f"GET /ws HTTP/1.1\r\nHost: {spaced.host('alice', 'counted')}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                  f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
        assert s.recv(4096).startswith(b"HTTP/1.1 101 ")
        wait_for("an open WebSocket", lambda: of(scrape(spaced, admin), "spaced_websockets_open", name) == 1)
        assert of(scrape(spaced, admin), "spaced_requests_open", name) == 1
    wait_for("no WebSocket", lambda: of(scrape(spaced, admin), "spaced_websockets_open", name) == 0)
    assert of(scrape(spaced, admin), "spaced_requests_total", name, code="1xx") == 1


def test_holds_and_wakes(spaced, admin):
    name = "alice/counted"
    before = scrape(spaced, admin)
    assert spaced.spacectl("space", "sleep", name)[0] == 0
    spaced.wait_stage("alice", "counted", "SLEEPING")
    assert spaced.get("alice", "counted", "/200", timeout=60).status == 200
    for metric in ("spaced_wakes_total", "spaced_holds_total"):
        wait_for(metric, lambda: of(scrape(spaced, admin), metric, name) == of(before, metric, name) + 1)
    wait_for("nothing held", lambda: of(scrape(spaced, admin), "spaced_requests_held", name) == 0)


def test_what_is_of_no_space(spaced, admin):
    def refused():
        series = scrape(spaced, admin)
        return [of(series, "spaced_refused_total", "-", reason=reason) for reason in ("host", "malformed")]

    def one_each():
        before = refused()
        assert spaced.request("GET", "/", host="nobody.localhost").status == 404
        with socket.create_connection(("127.0.0.1", spaced.port)) as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
            assert s.recv(4096).startswith(b"HTTP/1.1 400 ")

        def both():
            grown = [now - then for now, then in zip(refused(), before)]
            return all(grown) and grown

        return wait_for("both to be counted", both) == [1, 1]

    wait_for("one of each", one_each)  # unless a proxy says only now what others were refused before


def test_a_dead_proxy_takes_nothing_along(spaced, admin):
    assert spaced.get("alice", "counted", "/200").status == 200

    def same(before):
        return {k: v for k, v in before.items() if k[0].startswith("spaced_requests_total") and "-" not in dict(k[1]).values()}

    before = wait_for("the last request", lambda: same(scrape(spaced, admin)))
    spaced.kill_role("proxy")
    wait_for("an answer", spaced.healthy)
    after = scrape(spaced, admin)
    for series, value in before.items():
        assert after[series] >= value, series
    wait_for("all proxies", lambda: scrape(spaced, admin)[("spaced_proxies", ())] == len(spaced.pids("proxy")))


def test_a_deleted_space_has_no_series(spaced, repo, admin):
    spaced.push_ok(repo(files=static_files()), "alice", "short-lived")
    spaced.wait_stage("alice", "short-lived", "RUNNING")
    assert spaced.get("alice", "short-lived").status == 200
    wait_for("its series", lambda: of(scrape(spaced, admin), "spaced_requests_total", "alice/short-lived", code="2xx"))
    spaced.spacectl("space", "delete", "-y", "alice/short-lived", check=True)
    wait_for("its end", lambda: not any("alice/short-lived" in dict(k[1]).values() for k in scrape(spaced, admin)))
