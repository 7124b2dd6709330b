"""After push, run, delete and stop nothing is left on the host: processes, mounts, cgroups, devices, interfaces."""
import json
import signal
import subprocess
from pathlib import Path

from apps import app_files
from harness import wait_for


def host():
    """What could be left behind, as sets of names."""
    groups = set()
    for top in Path("/sys/fs/cgroup").glob("**/*spaced*"):
        groups.add(str(top))
        groups.update(str(p) for p in top.glob("**") if p.is_dir())
    interfaces = {entry["ifname"] for entry in json.loads(subprocess.check_output(["ip", "-j", "link"]))}
    loops = {line.split(":")[0] for line in subprocess.run(["losetup", "-a"], capture_output=True, text=True).stdout.splitlines()}
    return {"cgroups": groups, "interfaces": interfaces, "loop devices": loops,
            "mounts": {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}}


def test_nothing_is_left(start_spaced, repo):
    before = host()
    daemon = start_spaced()
    work = repo(files={**app_files("x"), "requirements.txt": "itsdangerous==2.2.0\n"})
    for name in ("one", "two"):
        daemon.push_ok(work, "alice", name)
    daemon.spacectl("space", "delete", "alice/two", check=True)
    pids = {pid for role in daemon.pids().values() for pid in role}
    daemon.stop(signal.SIGINT)
    state = str(daemon.state)

    def left():
        now = host()
        found = {kind: names - before[kind] for kind, names in now.items()}
        # The folder of the daemon's own group may stay: it is empty and used again.
        found["cgroups"] = {g for g in found["cgroups"] if (Path(g) / "cgroup.procs").exists()
                            and (Path(g) / "cgroup.procs").read_text().strip()}
        found["processes"] = {p for p in pids if Path(f"/proc/{p}").exists()}
        found["mounts"] = {m for m in found["mounts"] if state in m}
        return {kind: names for kind, names in found.items() if names}

    try:
        wait_for("everything to be gone", lambda: not left(), 15)
    except AssertionError:
        raise AssertionError(f"left behind: {left()}") from None
