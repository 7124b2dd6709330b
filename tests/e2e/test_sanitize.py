"""The whole way once, meant for the build with ASan and UBSan (tests/run sanitize): no role may report anything."""
import concurrent.futures
import contextlib
import re
import signal

import pytest

from apps import app_files, static_files
from harness import Spaced

REPORT = re.compile(r"ERROR: (Address|Leak|Undefined)\w*Sanitizer|runtime error:|SUMMARY: \w+Sanitizer|has encountered a fatal")


@pytest.mark.deadline(600)
def sleep_and_wake(daemon, answer):
    """Down each rung of the ladder, with requests that wait: frozen, and stopped."""
    for space_sleep in ([], ["space", "sleep", "alice/app"], ["space", "sleep", "alice/app"]):
        if space_sleep:
            assert daemon.spacectl(*space_sleep)[0] == 0
        daemon.wait_stage("alice", "app", "SLEEPING")
        with contextlib.suppress(TimeoutError):  # who does not live to see the answer
            daemon.get("alice", "app", timeout=0.001)
        hasty = daemon.get("alice", "app", headers={"X-Scale-Up-Timeout": "0"})
        assert hasty.status in (200, 503)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(daemon.get, "alice", "app", timeout=60) for _ in range(8)]
            assert {a.result().text for a in answers} == {answer}
    for args in (["30m"], ["default"], ["never"]):
        assert daemon.spacectl("space", "sleep", "alice/app", *args)[0] == 0
    assert daemon.spacectl("space", "wake", "alice/app")[0] == 0


def test_push_run_stop_without_a_report(repo):
    daemon = Spaced(freeze_after="2s")
    try:
        daemon.start(timeout=60)
        app = repo(files=app_files("one"))
        daemon.push_ok(app, "alice", "app")
        assert daemon.get("alice", "app").text == "one"
        app.commit("two", {"app.py": app_files("two")["app.py"]})
        daemon.push_ok(app, "alice", "app")
        assert daemon.get("alice", "app").text == "two"
        sleep_and_wake(daemon, "two")
        site = repo(files=static_files("site"))
        daemon.push_ok(site, "alice", "site")
        assert daemon.get("alice", "site").text == "site"
        assert daemon.get("alice", "site", "/none").status == 404
        assert daemon.push(repo(files={"x": "nothing to run"}), "alice", "bad").returncode == 0
        app.git("fetch", "-q", daemon.remote("alice", "app"), "main")
        for args in (["space", "list"], ["status"], ["doctor"], ["build", "list", "alice/app"], ["token", "list", "alice"],
                     ["space", "logs", "alice/app"], ["exec", "alice/app", "--", "true"],
                     ["exec", "-t", "alice/app", "--", "true"], ["space", "restart", "alice/app"],
                     ["space", "storage", "alice/app", "32M"], ["exec", "alice/app", "--", "true"],
                     ["space", "storage", "alice/app", "64M"], ["space", "egress", "alice/app", "none"],
                     ["space", "base", "alice/app", "host"], ["base", "list"], ["space", "show", "alice/app"],
                     ["--json", "space", "events", "alice/app"], ["space", "pause", "alice/app"],
                     ["space", "storage", "alice/app", "off", "-y"], ["space", "restart", "alice/app"],
                     ["space", "delete", "alice/site"]):
            assert daemon.spacectl(*args)[0] == 0, args
        for path in ("/", "/api/spaces", "/api/spaces/alice/app", "/nowhere"):
            daemon.request("GET", path)
        daemon.request("GET", "/", host="unknown.localhost")
        daemon.stop(signal.SIGTERM, timeout=120)
        daemon.start(timeout=60)
        daemon.get_ok("alice", "app")
        daemon.stop(signal.SIGINT, timeout=120)
        log = daemon.log_path.read_text(errors="replace")
        assert not REPORT.search(log), log[REPORT.search(log).start():][:6000]
        assert daemon.process.returncode in (0, 130)
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.stop(signal.SIGINT, timeout=120)
        daemon.close()
