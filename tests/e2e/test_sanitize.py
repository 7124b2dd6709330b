"""The whole way once, meant for the build with ASan and UBSan (tests/run sanitize): no role may report anything."""
import re
import signal

import pytest

from apps import app_files, static_files
from harness import Spaced

REPORT = re.compile(r"ERROR: (Address|Leak|Undefined)\w*Sanitizer|runtime error:|SUMMARY: \w+Sanitizer|has encountered a fatal")


@pytest.mark.deadline(600)
def test_push_run_stop_without_a_report(repo):
    daemon = Spaced()
    try:
        daemon.start(timeout=60)
        app = repo(files=app_files("one"))
        daemon.push_ok(app, "alice", "app")
        assert daemon.get("alice", "app").text == "one"
        app.commit("two", {"app.py": app_files("two")["app.py"]})
        daemon.push_ok(app, "alice", "app")
        assert daemon.get("alice", "app").text == "two"
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
