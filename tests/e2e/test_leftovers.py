"""After push, run, delete and stop nothing is left on the host: processes, mounts, cgroups, devices, interfaces."""
import contextlib
import glob
import json
import re
import signal
import subprocess
from pathlib import Path

from apps import app_files
from harness import wait_for


def tag_of(daemon):
    """The tag of a daemon that has started an app."""
    return re.search(r"cgroup /spaced-([0-9a-f]{5})/", daemon.log_path.read_text())[1]


def traces(tag, state):
    """What a daemon with this tag and state makes on the host, as sets of names; others may run beside it."""
    groups = set()  # not by pathlib's glob(), which fails when it comes to a group of others that has just been removed
    for procs in glob.glob(f"/sys/fs/cgroup/**/spaced-{tag}/**/cgroup.procs", recursive=True):
        with contextlib.suppress(OSError):
            if Path(procs).read_text().strip():
                groups.add(procs)
    links = json.loads(subprocess.check_output(["ip", "-j", "link"]))
    loops = subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=True).stdout
    return {
        # The folder of the daemon's own group may stay: it is empty and used again.
        "cgroups": groups,
        "interfaces": {link["ifname"] for link in links if tag in link["ifname"]},
        "loop devices": {line for line in loops.splitlines() if state in line},
        "mounts": {line for line in Path("/proc/self/mountinfo").read_text().splitlines() if state in line},
    }


def test_nothing_is_left(start_spaced, repo):
    daemon = start_spaced()
    state = str(daemon.state)
    work = repo(files={**app_files("x"), "requirements.txt": "itsdangerous==2.2.0\n"})
    for name in ("one", "two"):
        daemon.push_ok(work, "alice", name)
    tag = tag_of(daemon)
    assert [kind for kind, names in traces(tag, state).items() if names] == ["cgroups", "interfaces", "loop devices"]  # no mount
    daemon.spacectl("space", "delete", "alice/two", check=True)
    pids = {pid for role in daemon.pids().values() for pid in role}
    daemon.stop(signal.SIGINT)

    def left():
        found = traces(tag, state)
        found["processes"] = {p for p in pids if Path(f"/proc/{p}").exists()}
        return {kind: names for kind, names in found.items() if names}

    try:
        wait_for("everything to be gone", lambda: not left())
    except AssertionError:
        raise AssertionError(f"left behind: {left()}") from None
