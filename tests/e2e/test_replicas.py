"""Several instances of a Space: requests are spread over them, one that dies is missed by nobody, and deploys, restarts, sleep and
pause treat all of them."""
import http.client
import os
import re
import select
import signal
import socket
import threading
import time

import pytest

from apps import app_files, static_files
from harness import Repo, Spaced, child_pids, wait_for

APP = """
import uuid
OWN, VERSION = uuid.uuid4().hex, "{version}"
"""


def app(version="one"):
    """Says who it is: a name of its own for each process, and the version."""
    files = app_files(body="json.dumps({'own': OWN, 'version': VERSION}).encode()")
    files["app.py"] = APP.replace("{version}", version) + files["app.py"]
    return files


@pytest.fixture(scope="module")
def daemon():
    d = Spaced(memory="256M", proxies=2, freeze_after=0)
    try:
        yield d.start()
    finally:
        d.close()


def push(daemon, tmp_path, name, version="one"):
    daemon.push_ok(Repo(tmp_path / f"{name}-{version}", files=app(version)), "alice", name, "+main")


def who(daemon, name, **kw):
    answer = daemon.get("alice", name, **kw)
    assert answer.status == 200, (answer.status, answer.text)
    return answer.json()


def spread(daemon, name, n=40):
    return {who(daemon, name)["own"] for _ in range(n)}


def scale(daemon, name, n):
    daemon.spacectl("space", "scale", f"alice/{name}", n, check=True)


def current(daemon, name):
    return daemon.runtime("alice", name)["replicas"]["current"]


def wait_spread(daemon, name, n):
    """What is adopted may turn out to have ended: both have to say so many."""
    return wait_for(f"{n} instances",
                    lambda: current(daemon, name) == n and len(found := spread(daemon, name)) == n and found)


def instances(daemon, name):
    """{instance: pid of its monitor}"""
    space = daemon.show("alice", name)["_id"]
    found = {}
    for pid in daemon.monitors(space):
        try:
            logs = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue  # it has just ended
        for log in logs:
            if m := re.search(rf"run-{space}-(\d+)\.log", log):
                found[f"app-{space}-{m.group(1)}"] = pid
    return found


def main_instance(daemon, name):
    return daemon.show("alice", name)["spaced"]["live"]["instance"]


def end(monitor):
    """Ends the app by its init, the monitor's child."""
    for pid in child_pids(monitor):
        os.kill(pid, signal.SIGKILL)


def kill(daemon, name, main):
    """Ends one instance, the first or another, and returns when the daemon knows."""
    first = main_instance(daemon, name)
    victim = first if main else next(i for i in sorted(instances(daemon, name)) if i != first)
    end(instances(daemon, name)[victim])
    wait_for("its end", lambda: any(e["kind"] == "crashed" for e in daemon.ctl_json("space", "events", f"alice/{name}")))
    wait_for("nobody to reach it", lambda: victim not in instances(daemon, name))


class Visitors:
    """One request after another; what was not answered by an app is noted."""

    def __init__(self, daemon, name, n=3):
        self.daemon, self.name, self.end, self.bad, self.seen = daemon, name, threading.Event(), [], []
        self.threads = [threading.Thread(target=self.run) for _ in range(n)]
        for t in self.threads:
            t.start()

    def run(self):
        while not self.end.is_set():
            try:
                answer = self.daemon.get("alice", self.name)
                (self.seen if answer.status == 200 else self.bad).append(answer.text)
            except (OSError, http.client.HTTPException) as error:
                self.bad.append(repr(error))

    def stop(self):
        self.end.set()
        for t in self.threads:
            t.join()
        assert not self.bad, self.bad[:3]


def test_scale_up_and_down(daemon, tmp_path):
    push(daemon, tmp_path, "scale")
    first = who(daemon, "scale")["own"]
    visitors = Visitors(daemon, "scale")
    try:
        scale(daemon, "scale", 3)
        assert first in wait_spread(daemon, "scale", 3)
        assert len(instances(daemon, "scale")) == 3
        assert daemon.runtime("alice", "scale")["replicas"] == {"current": 3, "requested": 3}
        assert "3 of 3" in daemon.spacectl("space", "show", "alice/scale", check=True)[1]
        scale(daemon, "scale", 1)
        assert wait_spread(daemon, "scale", 1) == {first}
        wait_for("the others to end", lambda: len(instances(daemon, "scale")) == 1)
    finally:
        visitors.stop()


@pytest.mark.parametrize("main", [False, True])
def test_one_that_dies(daemon, tmp_path, main):
    name = f"dies-{main}".lower()
    push(daemon, tmp_path, name)
    scale(daemon, name, 2)
    before = wait_spread(daemon, name, 2)
    kill(daemon, name, main)
    assert daemon.stage("alice", name) == "RUNNING"
    left = spread(daemon, name)
    assert len(left & before) == 1
    again = wait_spread(daemon, name, 2)
    assert len(again & before) == 1
    assert daemon.stage("alice", name) == "RUNNING"


def test_a_deploy_replaces_all(daemon, tmp_path):
    push(daemon, tmp_path, "deploys")
    scale(daemon, "deploys", 2)
    before = wait_spread(daemon, "deploys", 2)
    visitors = Visitors(daemon, "deploys")
    try:
        push(daemon, tmp_path, "deploys", "two")
        assert who(daemon, "deploys")["version"] == "two"
        assert not wait_spread(daemon, "deploys", 2) & before
        wait_for("the old ones to end", lambda: len(instances(daemon, "deploys")) == 2)
    finally:
        visitors.stop()


def test_restarts_of_roles_and_daemon_adopt_all(daemon, tmp_path):
    push(daemon, tmp_path, "adopted")
    scale(daemon, "adopted", 3)
    before = wait_spread(daemon, "adopted", 3)
    daemon.kill_role("control")
    wait_for("control", daemon.healthy)
    assert wait_spread(daemon, "adopted", 3) == before
    daemon.kill_role("spawner")
    wait_for("the spawner", daemon.healthy)
    assert wait_spread(daemon, "adopted", 3) == before
    daemon.restart()
    assert wait_spread(daemon, "adopted", 3) == before
    # The first of them ends while nobody looks.
    victim = instances(daemon, "adopted")[main_instance(daemon, "adopted")]
    daemon.stop()
    end(victim)
    daemon.start()
    after = wait_spread(daemon, "adopted", 3)
    assert len(after & before) == 2 and daemon.stage("alice", "adopted") == "RUNNING"


def test_pause_and_restart(daemon, tmp_path):
    push(daemon, tmp_path, "paused")
    scale(daemon, "paused", 2)
    before = wait_spread(daemon, "paused", 2)
    daemon.spacectl("space", "pause", "alice/paused", check=True)
    wait_for("all to end", lambda: not instances(daemon, "paused"))
    assert daemon.get("alice", "paused").status == 503
    assert daemon.runtime("alice", "paused")["replicas"] == {"current": 0, "requested": 0}
    daemon.spacectl("space", "restart", "alice/paused", check=True)
    daemon.wait_stage("alice", "paused", "RUNNING")
    assert not wait_spread(daemon, "paused", 2) & before
    daemon.spacectl("space", "delete", "alice/paused", "-y", check=True)
    wait_for("it to be gone", lambda: daemon.spacectl("space", "show", "alice/paused")[0] == 1)


@pytest.mark.parametrize("how", ["freeze", "stop"])
def test_sleep_takes_all_and_a_visit_brings_all_back(start_spaced, tmp_path, how):
    own = start_spaced(freeze_after="2s" if how == "freeze" else 0)
    push(own, tmp_path, "naps")
    own.spacectl("space", "sleep", "alice/naps", "never", check=True)  # before all are there
    scale(own, "naps", 3)
    before = wait_spread(own, "naps", 3)
    own.spacectl("space", "sleep", "alice/naps", "default", check=True)
    if how == "stop":
        own.spacectl("space", "sleep", "alice/naps", check=True)
    own.wait_stage("alice", "naps", "SLEEPING")
    left = 1 if how == "freeze" else 0
    wait_for(f"{left} to be left", lambda: len(instances(own, "naps")) == left)
    woken = who(own, "naps", timeout=90)["own"]
    assert (woken in before) == (how == "freeze")
    wait_for("all to be back", lambda: len({who(own, "naps")["own"] for _ in range(10)}) == 3)


def test_one_too_many_while_the_proxies_are_asked_has_its_drain_timeout(start_spaced, tmp_path):
    """What it has in flight ends then, though nothing else happens to any Space."""
    own = start_spaced(freeze_after="1s", drain_timeout="2s", proxies=1)
    slow = app_files(body="(time.sleep(3600) if self.path == '/slow' else b'quick') or b''")
    own.push_ok(Repo(tmp_path / "slow", files=slow), "alice", "asked", "+main")
    assert any(one_too_many(own, pause) for pause in (3, 6, 12)), "while it is asked nothing changes"


def one_too_many(own, pause):
    """`pause`: seconds, longer than freeze-after, until the proxy has been asked. False: one of the instances is gone at once, as if
    it had not been."""
    own.spacectl("space", "sleep", "alice/asked", "never", check=True)  # of two that sleep one would be back before the other
    scale(own, "asked", 2)
    wait_for("both to serve", lambda: current(own, "asked") == 2)
    waiting = []
    for _ in range(2):  # the one with the fewest in flight gets the second
        sock = socket.create_connection(("127.0.0.1", own.port), 30)
        sock.sendall(f"GET /slow HTTP/1.1\r\nHost: {own.host('alice', 'asked')}\r\n\r\n".encode())
        waiting.append(sock)
    wait_for("both requests to be in flight", lambda: own.show("alice", "asked")["spaced"]["live"]["connections"] == 2)
    own.spacectl("space", "sleep", "alice/asked", "default", check=True)
    proxy = own.pids("proxy")[0]
    os.kill(proxy, signal.SIGSTOP)
    try:
        time.sleep(pause)
        scale(own, "asked", 1)
        asked = current(own, "asked") == 2
        own.spacectl("space", "sleep", "alice/asked", "never", check=True)  # and it is not asked again
    finally:
        os.kill(proxy, signal.SIGCONT)
    if asked:
        assert select.select(waiting, [], [], 60)[0], "one of both is cut"
    for sock in waiting:
        sock.close()
    return asked


def test_sticky(daemon, tmp_path):
    push(daemon, tmp_path, "sticky")
    scale(daemon, "sticky", 2)
    wait_spread(daemon, "sticky", 2)
    assert daemon.get("alice", "sticky").headers["Set-Cookie"] is None
    daemon.spacectl("space", "sticky", "alice/sticky", "on", check=True)
    answer = wait_for("a cookie", lambda: (a := daemon.get("alice", "sticky")).headers["Set-Cookie"] and a)
    cookie = answer.headers["Set-Cookie"]
    assert re.fullmatch(r"spaced-instance=[0-9a-f]{32}; Path=/; HttpOnly; SameSite=Lax", cookie)
    crumb = {"Cookie": cookie.split(";")[0]}
    for _ in range(20):  # by either proxy
        again = daemon.get("alice", "sticky", headers=crumb)
        assert again.json()["own"] == answer.json()["own"] and again.headers["Set-Cookie"] is None
    # Its instance goes: another one, and the cookie of that.
    scale(daemon, "sticky", 1)
    wait_spread(daemon, "sticky", 1)
    scale(daemon, "sticky", 2)
    wait_spread(daemon, "sticky", 2)
    daemon.spacectl("space", "sticky", "alice/sticky", "off", check=True)
    wait_for("no cookie", lambda: daemon.get("alice", "sticky").headers["Set-Cookie"] is None)


def test_what_is_refused(daemon, tmp_path):
    push(daemon, tmp_path, "refused")
    for n in (0, 5, 999999):
        code, _, err = daemon.spacectl("space", "scale", "alice/refused", n)
        assert code == 1 and "1 to 4 instances" in err
    assert daemon.spacectl("space", "scale", "alice/refused", "many")[0] == 2
    assert daemon.spacectl("space", "sticky", "alice/refused", "maybe")[0] == 2
    daemon.push_ok(Repo(tmp_path / "still", files=static_files()), "alice", "still")
    assert "static" in daemon.spacectl("space", "scale", "alice/still", 2)[2]
    path = "/api/spaces/alice/refused/replicas"
    for body, token, status in (("{}", "alice", 400), ('{"replicas": "2"}', "alice", 400), ('{"sticky": 1}', "alice", 400),
                                ('{"replicas": -1}', "alice", 400), ('{"replicas": 2}', "bob", 403)):
        answer = daemon.request("POST", path, body=body, headers={"Authorization": f"Bearer {daemon.token(token)}",
                                                                  "Content-Type": "application/json"})
        assert answer.status == status, (body, answer.text)


def test_more_than_the_host_has(start_spaced, tmp_path):
    daemon = start_spaced(memory=f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // 2}", replicas_max=16)
    daemon.push_ok(Repo(tmp_path / "large", files=app()), "alice", "large")
    code, _, err = daemon.spacectl("space", "scale", "alice/large", 3)
    assert code == 1 and "more than the host's memory" in err
