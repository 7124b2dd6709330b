"""Apps that nobody visits fall asleep, and a visit wakes them: the whole daemon, real freezers, real visitors (battery I3, I4)."""
import asyncio
import concurrent.futures
import contextlib
import datetime
import http.client
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
from pathlib import Path

import pytest

from apps import app_files
from harness import Spaced, app_processes, child_pids, cmdline, git_env, held_up, wait_for
from proxyraw import Peer
from test_handover import APP as ECHO

IDENTITY = "json.dumps({'pid': os.getpid(), 'started': STARTED}).encode()"
HTML = {"Accept": "text/html,application/xhtml+xml", "Sec-Fetch-Mode": "navigate"}


def identity_app(delay=0.0):
    """Says which process it is; `delay`: seconds until it listens. POST answers with the length of the body."""
    files = app_files(body=IDENTITY)
    post = ("    def do_POST(self):\n        n = len(self.rfile.read(int(self.headers['Content-Length'])))\n"
            "        body = str(n).encode()\n        self.send_response(200)\n"
            "        self.send_header('Content-Length', str(len(body)))\n        self.end_headers()\n"
            "        self.wfile.write(body)\n    def log_message")
    files["app.py"] = (f"import time\nSTARTED = time.time()\ntime.sleep({delay})\n" + files["app.py"]).replace(
        "    def log_message", post, 1)
    return files


def daemon(**options):
    d = Spaced(**options)
    try:
        return d.start()
    except BaseException:
        d.close()
        raise


@pytest.fixture(scope="module")
def dozy():
    """Freezes after a second."""
    d = daemon(freeze_after="1s", proxies=2)
    yield d
    d.close()


@pytest.fixture(scope="module")
def sleepy():
    """Never freezes; stopped by hand."""
    d = daemon(freeze_after=0, proxies=2)
    yield d
    d.close()


def events(d, name, kind):
    return [e["text"] for e in d.ctl_json("space", "events", f"alice/{name}") if e["kind"] == kind]


def instance(d, name):
    return d.show("alice", name)["spaced"]["live"]["instance"]


def until_asleep(d, name):
    d.wait_stage("alice", name, "SLEEPING")


def many(d, name, n, **kw):
    with concurrent.futures.ThreadPoolExecutor(n) as pool:
        return [f.result() for f in [pool.submit(d.get, "alice", name, timeout=90, **kw) for _ in range(n)]]


def runs_after_a_visit(d, name):
    """It may have fallen asleep again before it is asked for its stage."""
    wait_for("it to run", lambda: d.get("alice", name).status == 200 and d.stage("alice", name) == "RUNNING")


def test_freezes_and_a_visit_thaws_it(dozy, repo):
    dozy.push_ok(repo(files=identity_app()), "alice", "doze")
    first = dozy.get("alice", "doze")
    assert first.status == 200
    until_asleep(dozy, "doze")
    assert any("without a visit" in t for t in events(dozy, "doze", "asleep"))
    answers = many(dozy, "doze", 50)
    assert {a.status for a in answers} == {200}
    assert {a.text for a in answers} == {first.text}, "the same process as before"
    turns = [e["kind"] for e in dozy.ctl_json("space", "events", "alice/doze") if e["kind"] in ("asleep", "woken")]
    assert "woken" in turns and all(a != b for a, b in zip(turns, turns[1:])), "one wake, however many came"
    runs_after_a_visit(dozy, "doze")


def test_no_request_is_lost_around_the_freeze(dozy, repo):
    """Visits at about the moment of the freeze, again and again: each is answered by the same process."""

    def visit(n):
        name = f"edge{n}"
        dozy.push_ok(repo(files=identity_app()), "alice", name)
        first = dozy.get("alice", name).text
        for i in range(n, 12, 3):
            time.sleep(0.9 + 0.08 * i)
            got = dozy.get("alice", name)
            assert (got.status, got.text) == (200, first)

    dozy.token()
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(visit, range(3)))


def test_no_visit_is_lost_whatever_happens(dozy, repo):
    """Visits at about the time of the freeze, and while it is put to sleep or restarted, or control or the spawner is killed."""
    dozy.push_ok(repo(files=identity_app()), "alice", "street")
    acts = (lambda: dozy.spacectl("space", "sleep", "alice/street"), lambda: dozy.kill_role("control"),
            lambda: dozy.spacectl("space", "restart", "alice/street"), lambda: dozy.kill_role("spawner"), lambda: None)
    statuses = []
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for act in acts:
            for pause in (1.2, 1.6, 2.0):
                visits = [pool.submit(dozy.get, "alice", "street", timeout=60) for _ in range(3)]
                if pause < 2:
                    act()
                statuses += [v.result().status for v in visits]
                time.sleep(pause)
    assert set(statuses) == {200}
    assert any("without a visit" in t for t in events(dozy, "street", "asleep")), "it was frozen in between"


def test_open_websocket_keeps_it_awake_and_wakes_it(dozy, repo):
    dozy.push_ok(repo(files={**app_files(), "app.py": ECHO}), "alice", "ws")

    def talk(silent):
        peer = Peer(socket.create_connection(("127.0.0.1", dozy.port)))
        peer.send((f"GET /ws HTTP/1.1\r\nHost: {dozy.host('alice', 'ws')}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                   "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode())
        assert peer.message(head_only=True).status == 101
        for text in (b"one", b"two"):
            peer.send(text)
            assert peer.exactly(3) == text
            time.sleep(silent)
            assert dozy.stage("alice", "ws") == "RUNNING"
        peer.close()

    talk(2.5)  # more than twice the idle time: nothing is said, and it stays
    until_asleep(dozy, "ws")
    talk(0)
    assert dozy.spacectl("space", "sleep", "alice/ws")[0] == 0
    talk(0)  # stopped: held while it starts, then upgraded


def test_frozen_survives_control_spawner_and_daemon(dozy, repo):
    dozy.push_ok(repo(files=identity_app()), "alice", "keeps")
    first = dozy.get("alice", "keeps").text
    for kill in (lambda: dozy.kill_role("control"), lambda: dozy.kill_role("spawner"), dozy.restart):
        until_asleep(dozy, "keeps")
        kill()
        got = dozy.get("alice", "keeps", timeout=60)
        assert (got.status, got.text) == (200, first)
    runs_after_a_visit(dozy, "keeps")


def test_a_visit_before_control_knows_what_runs(dozy, repo):
    """A new control hears of a visit before its spawner has told what is frozen: no second instance beside it."""
    dozy.push_ok(repo(files=identity_app()), "alice", "early")
    first = dozy.get("alice", "early").text
    generation = dozy.show("alice", "early")["spaced"]["generation"]
    until_asleep(dozy, "early")
    parent = dozy.process.pid
    before = child_pids(parent)

    def new_spawner():  # of the new control; quicker than dozy.pids(): it answers within milliseconds of its start
        now = map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
        roles = {"".join(cmdline(pid)[-1:]): pid for pid in now if pid not in before}
        return roles.get("spawner") if "control" in roles else None

    os.kill(dozy.pids("control")[0], signal.SIGKILL)
    spawner = wait_for("a new spawner", new_spawner, 30, 0.0005)
    os.kill(spawner, signal.SIGSTOP)
    try:
        wait_for("the new control", dozy.healthy)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            visits = [pool.submit(dozy.get, "alice", "early", timeout=60) for _ in range(4)]
            statuses = [dozy.request("GET", "/healthz").status for _ in range(40)]
            assert statuses == [200] * 40, "which takes longer than it takes the visits to come in"
            os.kill(spawner, signal.SIGCONT)
            assert {(v.result().status, v.result().text) for v in visits} == {(200, first)}
    finally:
        os.kill(spawner, signal.SIGCONT)
    assert dozy.show("alice", "early")["spaced"]["generation"] == generation


def test_control_dies_between_the_wake_and_the_thaw(dozy, repo):
    """The store says RUNNING, the app is frozen, and who was to thaw it is gone."""
    dozy.push_ok(repo(files=identity_app()), "alice", "torn")
    first = dozy.get("alice", "torn").text
    until_asleep(dozy, "torn")
    spawner, control = dozy.pids("spawner")[0], dozy.pids("control")[0]
    os.kill(spawner, signal.SIGSTOP)
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            got = pool.submit(dozy.get, "alice", "torn", timeout=60)
            wait_for("the wake to be noted", lambda: dozy.told("alice", "torn")["stage"] == "RUNNING")
            assert not got.done()
            os.kill(control, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):  # the parent does it after two seconds
                os.kill(spawner, signal.SIGKILL)
            assert (got.result().status, got.result().text) == (200, first)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(spawner, signal.SIGCONT)


def test_a_command_inside_keeps_it_awake(dozy, repo):
    dozy.push_ok(repo(files=identity_app()), "alice", "shell")
    code, out, err = dozy.spacectl("exec", "alice/shell", "--", "sh", "-c", "date +%s.%N; sleep 4; date +%s.%N")
    assert code == 0, err
    until_asleep(dozy, "shell")
    began, ended = map(float, out.split())
    slept = [datetime.datetime.fromisoformat(e["at"].replace("Z", "+00:00")).timestamp()
             for e in dozy.ctl_json("space", "events", "alice/shell") if e["kind"] == "asleep"]
    assert slept and not [at for at in slept if began < at < ended]


def test_exec_deploy_and_pause_while_frozen(dozy, repo):
    work = repo(files=identity_app())
    dozy.push_ok(work, "alice", "busy")
    first = dozy.get("alice", "busy").text
    until_asleep(dozy, "busy")
    code, out, err = dozy.spacectl("exec", "alice/busy", "--", "echo", "inside")
    assert (code, out) == (0, "inside\n"), err
    until_asleep(dozy, "busy")
    work.commit("second", {"second": "x"})
    dozy.push_ok(work, "alice", "busy")
    assert dozy.get_ok("alice", "busy").text != first
    until_asleep(dozy, "busy")
    second = instance(dozy, "busy")
    assert dozy.spacectl("space", "restart", "alice/busy")[0] == 0
    wait_for("the other instance", lambda: instance(dozy, "busy") != second, 60)
    until_asleep(dozy, "busy")
    assert dozy.spacectl("space", "pause", "alice/busy")[0] == 0
    assert dozy.get("alice", "busy").status == 503
    assert dozy.stage("alice", "busy") == "PAUSED", "a visit does not wake what is paused"


def test_deleted_while_frozen_and_while_a_visit_wakes_it(dozy, repo):
    for name, visits in (("gone", 0), ("gone-too", 8)):
        dozy.push_ok(repo(files=identity_app()), "alice", name)
        dozy.get_ok("alice", name)
        until_asleep(dozy, name)
        assert app_processes(f"alice/{name}")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(dozy.get, "alice", name, timeout=60) for _ in range(visits)]
            assert dozy.spacectl("space", "delete", f"alice/{name}", "-y")[0] == 0
            for answer in answers:
                with contextlib.suppress(http.client.IncompleteRead):  # it had begun when the app was ended
                    assert answer.result().status in (200, 404, 502, 503), "each has an answer"
        wait_for("the end of its processes", lambda n=name: not app_processes(f"alice/{n}"), 60)
        wait_for("the end of its record", lambda: dozy.spacectl("space", "show", f"alice/{name}")[0] == 1, 60)
        assert dozy.get("alice", name).status == 404


def test_strangers_do_not_keep_a_private_space_awake(dozy, repo):
    dozy.push_ok(repo(files=identity_app()), "alice", "secret")
    assert dozy.spacectl("space", "visibility", "alice/secret", "private")[0] == 0

    def asleep_though_asked():
        assert dozy.get("alice", "secret").status == 401
        return dozy.stage("alice", "secret") == "SLEEPING"
    wait_for("sleep", asleep_though_asked)
    for _ in range(5):
        assert dozy.get("alice", "secret").status == 401
    assert dozy.stage("alice", "secret") == "SLEEPING", "nor do they wake it"


SLEEP_TIME = """
import sys
from huggingface_hub import HfApi
seconds = int(sys.argv[3])
api = HfApi(endpoint=sys.argv[1], token=sys.argv[2])
print(api.get_space_runtime("alice/own").sleep_time, api.set_space_sleep_time("alice/own", seconds).sleep_time)
"""


PAUSE_AND_RESTART = """
import sys
from huggingface_hub import HfApi
api = HfApi(endpoint=sys.argv[1], token=sys.argv[2])
print(api.get_space_runtime("alice/own").stage, api.pause_space("alice/own").stage, api.restart_space("alice/own").stage)
"""


def test_stopped_after_its_own_sleep_time(dozy, repo, venv):
    """By the stock client: set_space_sleep_time()."""
    python = venv("huggingface_hub==0.36.0")

    def set_sleep_time(seconds):
        return subprocess.run([python, "-W", "ignore", "-c", SLEEP_TIME, dozy.url, dozy.token(), str(seconds)],
                              env=git_env(dozy.home), capture_output=True, text=True, check=True).stdout.strip()

    dozy.push_ok(repo(files=identity_app()), "alice", "own")
    first = dozy.get("alice", "own").text
    assert set_sleep_time(2) == "172800 2"
    until_asleep(dozy, "own")
    wait_for("it to be stopped", lambda: "live" not in dozy.show("alice", "own")["spaced"])
    got = dozy.get("alice", "own", timeout=60)
    assert got.status == 200 and got.text != first, "another process"
    assert set_sleep_time(-1) == "2 None"
    dozy.get("alice", "own")
    time.sleep(2.5)
    assert dozy.stage("alice", "own") == "RUNNING", "never means never"
    set_sleep_time(0)
    until_asleep(dozy, "own")
    out = subprocess.run([python, "-W", "ignore", "-c", PAUSE_AND_RESTART, dozy.url, dozy.token()],
                         env=git_env(dozy.home), capture_output=True, text=True, check=True).stdout
    assert out.split() == ["SLEEPING", "PAUSED", "APP_STARTING"]
    dozy.wait_stage("alice", "own", {"RUNNING", "SLEEPING"}, 60)


def test_sleep_time_by_spacectl_and_page(sleepy, repo):
    sleepy.push_ok(repo(files=identity_app()), "alice", "timed")

    def shown():
        return (sleepy.runtime("alice", "timed")["gcTimeout"], sleepy.show("alice", "timed")["spaced"]["sleeps"])

    assert shown() == (172800, "after 2d without a visit (the host's)")
    for time_, seconds, words in (("30m", 1800, "after 30m without a visit"), ("never", None, "never"),
                                  ("1.5h", 5400, "after 90m without a visit"),
                                  ("default", 172800, "after 2d without a visit (the host's)")):
        code, out, err = sleepy.spacectl("space", "sleep", "alice/timed", time_)
        assert (code, out) == (0, f"alice/timed: sleep time {time_}\n"), err
        assert shown() == (seconds, words)
    for wrong in ("soon", "0", "100000d", ""):
        code, out, err = sleepy.spacectl("space", "sleep", "alice/timed", wrong)
        assert code == 1 and "such as 30m" in err, (wrong, err)
    assert events(sleepy, "timed", "sleep time")[0] == "after 2d without a visit (the host's)"

    def post(time_, token, **headers):
        form = urllib.parse.urlencode({"time": time_, "token": token})
        return sleepy.request("POST", "/spaces/alice/timed/settings", body=form, headers={
            "Content-Type": "application/x-www-form-urlencoded", **headers})

    own, other = sleepy.token(), sleepy.token("bob")
    page = sleepy.request("GET", "/spaces/alice/timed/settings", headers={"Authorization": f"Bearer {own}"})
    assert page.status == 200 and "after 2d without a visit (the host&#39;s)" in page.text
    assert sleepy.request("GET", "/spaces/alice/timed/settings").status == 401
    assert (post("45m", own).status, shown()) == (303, (2700, "after 45m without a visit"))
    refused = [post("1m", "hf_wrong"), post("1m", ""), post("1m", other), post("soon", own),
               post("1m", own, Origin="http://alice-evil.localhost")]
    assert [r.status for r in refused] == [401, 400, 403, 400, 403]
    assert shown() == (2700, "after 45m without a visit")
    assert sleepy.stage("alice", "timed") == "RUNNING"


def test_many_requests_to_a_stopped_space_one_start(sleepy, repo):
    sleepy.push_ok(repo(files=identity_app(delay=1)), "alice", "herd")
    before = sleepy.show("alice", "herd")["spaced"]["generation"]
    assert sleepy.spacectl("space", "sleep", "alice/herd")[0] == 0
    assert sleepy.stage("alice", "herd") == "SLEEPING"
    answers = many(sleepy, "herd", 200)
    assert {a.status for a in answers} == {200}
    assert len({a.text for a in answers}) == 1
    assert sleepy.show("alice", "herd")["spaced"]["generation"] == before + 1, "one start"
    assert events(sleepy, "herd", "woken") == ["woken by a visit: it is started"]


def test_an_app_that_accepts_late_loses_nobody(sleepy, repo):
    """Once it is healthy it is held up, for longer than a connection may take. Its queue takes six, as that of any http.server in
    Python: those who find no place there would be heard again only with the retransmissions of TCP, each later than the one
    before, and of each again only six."""
    files = identity_app()
    files["app.py"] = files["app.py"].replace("ThreadingHTTPServer((", """
class Server(ThreadingHTTPServer):
    held_up = False
    def process_request(self, *a):
        super().process_request(*a)
        if not self.held_up:
            self.held_up = True
            time.sleep(7)
Server((""")
    sleepy.push_ok(repo(files=files), "alice", "late")
    assert sleepy.spacectl("space", "sleep", "alice/late")[0] == 0
    since = time.monotonic()
    assert {a.status for a in many(sleepy, "late", 200)} == {200}
    assert time.monotonic() - since < 60


async def one_of_a_flood(d, name):
    """(status, with Retry-After) of a request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", d.port)
    writer.write(f"GET / HTTP/1.1\r\nHost: {d.host('alice', name)}\r\nConnection: close\r\n\r\n".encode())
    head = (await asyncio.wait_for(reader.read(), 120)).partition(b"\r\n\r\n")[0].decode()
    writer.close()
    lines = head.lower().split("\r\n")
    return int(lines[0].split()[1]), any(line.startswith("retry-after:") for line in lines)


def test_a_thousand_at_once_each_gets_an_answer(sleepy, repo):
    """One wake, and for each request the app's answer or, beyond the bounded queue, 503 with Retry-After: none hangs, none is lost."""
    sleepy.push_ok(repo(files=identity_app()), "alice", "flood")
    before = sleepy.show("alice", "flood")["spaced"]["generation"]
    assert sleepy.spacectl("space", "sleep", "alice/flood")[0] == 0

    async def flood():
        with held_up(sleepy):
            visits = [asyncio.create_task(one_of_a_flood(sleepy, "flood")) for _ in range(1000)]
            while sum(visit.done() for visit in visits) < 1000 - 2 * 256:  # what the queues of both proxies do not hold
                await asyncio.sleep(0.1)
        return await asyncio.gather(*visits)

    answers = asyncio.run(flood())
    assert set(answers) == {(200, False), (503, True)}
    held = answers.count((200, False))
    assert 256 <= held <= 2 * 256, "no fewer than the queue of one proxy, no more than of both"
    assert sleepy.show("alice", "flood")["spaced"]["generation"] == before + 1
    assert len(events(sleepy, "flood", "woken")) == 1
    assert sleepy.get("alice", "flood").status == 200


def test_post_is_held_with_its_body(sleepy, repo):
    sleepy.push_ok(repo(files=identity_app(delay=1)), "alice", "post")
    assert sleepy.spacectl("space", "sleep", "alice/post")[0] == 0
    body = b"x" * (3 << 20)
    got = sleepy.request("POST", "/", sleepy.host("alice", "post"), body=body, timeout=60)
    assert (got.status, got.text) == (200, str(len(body)))


def test_deadline_and_kinds(sleepy, repo):
    sleepy.push_ok(repo(files=identity_app(delay=2)), "alice", "slow")  # longer than a page is waited for
    assert sleepy.spacectl("space", "sleep", "alice/slow")[0] == 0
    with held_up(sleepy):
        got = sleepy.get("alice", "slow", headers={"X-Scale-Up-Timeout": "1", "Accept": "application/json"})
        assert got.status == 503 and got.headers["Retry-After"] and got.json()["status"] == 503
        page = sleepy.get("alice", "slow", headers=HTML)
        assert page.status == 503 and page.headers["Retry-After"] and "alice/slow" in page.text
    assert sleepy.get("alice", "slow", timeout=60).status == 200, "a program waits for it"
    assert sleepy.spacectl("space", "sleep", "alice/slow")[0] == 0
    got = sleepy.get("alice", "slow", headers={**HTML, "X-Scale-Up-Timeout": "60"}, timeout=60)
    assert got.status == 200, "who says how long waits so long, whatever it takes"


def test_control_killed_while_requests_are_held(sleepy, repo):
    sleepy.push_ok(repo(files=identity_app(delay=3)), "alice", "killed")
    assert sleepy.spacectl("space", "sleep", "alice/killed")[0] == 0
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(sleepy.get("alice", "killed", timeout=90).status))
               for _ in range(10)]
    with held_up(sleepy):
        for t in threads:
            t.start()
        wait_for("it to start", lambda: sleepy.told("alice", "killed")["stage"] == "APP_STARTING")
    sleepy.kill_role("control")
    for t in threads:
        t.join()
    assert answers == [200] * 10


def test_deploy_while_stopped(sleepy, repo):
    work = repo(files=identity_app())
    sleepy.push_ok(work, "alice", "fresh")
    assert sleepy.spacectl("space", "sleep", "alice/fresh")[0] == 0
    work.commit("second", {"second": "x"})
    sleepy.push_ok(work, "alice", "fresh")
    assert sleepy.stage("alice", "fresh") == "RUNNING"
    assert sleepy.get("alice", "fresh").status == 200


def test_a_push_that_fails_leaves_what_was_stopped_in_service(sleepy, repo):
    """As one that was awake: the version before answers while the new one is built, and afterwards."""
    work = repo(files=identity_app())
    sleepy.push_ok(work, "alice", "kept")
    assert sleepy.spacectl("space", "sleep", "alice/kept")[0] == 0
    work.commit("broken", {"requirements.txt": "no/such:requirement\n"})
    assert "Failed" in sleepy.push(work, "alice", "kept").stdout
    sleepy.wait_stage("alice", "kept", "RUNNING", 60)
    assert sleepy.get("alice", "kept").status == 200


def test_a_start_that_fails_answers_those_who_wait(sleepy, repo):
    """It comes up once, and not a second time: its storage remembers."""
    files = identity_app()
    files["app.py"] = ("import os, sys\nif os.path.isdir('/data'):\n    if os.path.exists('/data/once'):\n"
                       "        sys.exit(3)\n    open('/data/once', 'w').close()\n") + files["app.py"]
    sleepy.push_ok(repo(files=files), "alice", "fails")
    first = instance(sleepy, "fails")
    assert sleepy.spacectl("space", "storage", "alice/fails", "64M")[0] == 0
    wait_for("its storage", lambda: instance(sleepy, "fails") != first, 60)
    assert sleepy.stage("alice", "fails") == "RUNNING"
    assert sleepy.spacectl("space", "sleep", "alice/fails")[0] == 0
    answers = many(sleepy, "fails", 5)
    assert {a.status for a in answers} == {503}
    assert "Runtime error" in answers[0].text
    assert sleepy.stage("alice", "fails") == "RUNTIME_ERROR"


def test_memory_pressure_stops_what_is_frozen(repo):
    d = daemon(freeze_after="1s", memory_reserve="1000T")
    try:
        d.push_ok(repo(files=identity_app()), "alice", "pressed")
        until_asleep(d, "pressed")
        wait_for("it to be stopped", lambda: "live" not in d.show("alice", "pressed")["spaced"])
        assert any("memory is short" in t for t in events(d, "pressed", "asleep"))
        assert d.get("alice", "pressed", timeout=60).status == 200
    finally:
        d.close()


def test_visits_of_many_start_few_at_once(repo):
    """One place: the others are held meanwhile, are told why, and owners take turns."""
    d = daemon(freeze_after=0, proxies=1, starts=1)
    spaces = [("alice", "one"), ("alice", "two"), ("alice", "three"), ("alice", "four"), ("bob", "last")]

    try:
        for owner, name in spaces:
            d.push_ok(repo(files=identity_app(delay=1)), owner, name)
            d.spacectl("space", "sleep", f"{owner}/{name}", check=True)
        pushed = len(d.log_path.read_text())
        with concurrent.futures.ThreadPoolExecutor(len(spaces)) as pool:
            answers = []
            with held_up(d):  # not for as long as a place is taken at most
                for owner, name in spaces:
                    answers.append(pool.submit(d.get, owner, name, timeout=90))
                    wait_for(f"{name} to start", lambda o=owner, n=name: d.told(o, n)["stage"] == "APP_STARTING")
                waiting = [d.told(owner, name).get("message") for owner, name in spaces]
            answers = [f.result() for f in answers]
        assert [a.status for a in answers] == [200] * 5, answers
        started = sorted(a.json()["started"] for a in answers)
        assert all(b - a >= 1 for a, b in zip(started, started[1:])), started
        assert waiting[1:] == [f"Waiting for a free place to start, {n} before it." for n in (1, 2, 3, 0)], waiting
        ran = [line.split('msg="')[1].split(":")[0] for line in d.log_path.read_text()[pushed:].splitlines()
               if "-> RUNNING" in line]
        assert ran == ["alice/one", "bob/last", "alice/two", "alice/three", "alice/four"]
        assert not any(d.told(owner, name).get("message") for owner, name in spaces)
    finally:
        d.close()


def test_a_start_that_never_ends_gives_its_place_back(repo):
    d = daemon(freeze_after=0, proxies=1, starts=1)
    try:
        since = time.monotonic()
        d.push_ok(repo(files=identity_app(delay=3600)), "alice", "never", "main", "-o", "nowait")
        d.wait_stage("alice", "never", "APP_STARTING")
        out = d.push_ok(repo(files=identity_app()), "bob", "next")
        assert "Waiting for a free place to start, 0 before it." in out and "===== Live =====" in out
        assert time.monotonic() - since >= 20
        assert d.stage("alice", "never") == "APP_STARTING"
    finally:
        d.close()


def test_browser_sees_a_page_and_then_the_app(sleepy, repo, browser, tmp_path):
    files = app_files(body='b"<!doctype html><title>app</title><h1>The app itself</h1>"')
    files["app.py"] = files["app.py"].replace(
        'self.send_header("Content-Length"', 'self.send_header("Content-Type", "text/html"); self.send_header("Content-Length"')
    sleepy.push_ok(repo(files=files), "alice", "shown")
    assert sleepy.spacectl("space", "sleep", "alice/shown")[0] == 0
    with held_up(sleepy):
        browser.open(sleepy.app_url("alice", "shown"))
        browser.wait_text("alice/shown")
        assert "reloads by itself" in browser.text
        picture = os.environ.get("SPACED_PICTURES")
        browser.screenshot(f"{picture or tmp_path}/waiting.png")
    browser.wait_text("The app itself", 60)
