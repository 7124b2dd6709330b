"""`sandbox run` that is killed with SIGKILL cleans up nothing: what it leaves behind never piles up, and goes with the next run."""
import os
import subprocess
from pathlib import Path

import pytest

from harness import BUILD, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: looks at cgroups of the host")

# A /var/cache of its own, so that the numbers of these runs are theirs alone.
START = 'mount --bind "$1" /var/cache && shift && exec "$@"'


def command(cache, *argv):
    return ["unshare", "-m", "--propagation", "private", "sh", "-c", START, "sh", cache,
            BUILD / "sandbox", "run", "--memory", "64M", "--pids", "20", "--", *argv]


def groups_of(process):
    """The folders of the groups of a run's pid 1 inside, in every hierarchy that we can see; unlimited ones are not there."""
    (inside,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    found = set()
    for line in Path(f"/proc/{inside}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        tops = [f"/sys/fs/cgroup/{controllers}"] if controllers else ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        found |= {Path(top + path) for top in tops if "/spaced/run-" in path and Path(top + path).is_dir()}
    return found


# A process of it is killed by the memory limit, which its group counts.
APP = "head -c 200M /dev/zero | tail 2>/dev/null; echo up; exec sleep 1000"


def kill_one(cache):
    """Starts one, kills the launcher; what groups it had, with nobody in them any more."""
    process = subprocess.Popen(command(cache, "sh", "-c", APP), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n", process.stderr.read()
    groups = groups_of(process)
    process.kill()
    process.wait()
    assert process.stdout.read() == ""  # closed: all inside have ended with it
    process.stderr.close()
    process.stdout.close()
    wait_for("the last of them to leave its group", lambda: not any((g / "cgroup.procs").read_text() for g in groups))
    return groups


def test_groups_of_killed_runs_do_not_pile_up(tmp_path):
    first = kill_one(tmp_path)
    if not first:
        pytest.skip("this host has no cgroups that can be seen")
    assert all(g.is_dir() for g in first)  # what this is about: nobody was there to remove it
    for _ in range(3):
        assert kill_one(tmp_path) == first
    done = subprocess.run(command(tmp_path, "sh", "-c", "echo well"), capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("well\n", "")  # nothing of what happened to those before it
    assert not any(g.exists() for g in first)


def test_two_at_once_have_a_group_each(tmp_path):
    """Also when the one with the lower number was killed and its number is taken again."""
    first = kill_one(tmp_path)
    if not first:
        pytest.skip("this host has no cgroups that can be seen")
    runs = []
    try:
        for _ in range(2):
            runs.append(subprocess.Popen(command(tmp_path, "sh", "-c", "echo up; read line; echo $line"), text=True,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            assert runs[-1].stdout.readline() == "up\n"
        assert groups_of(runs[0]) == first
        assert groups_of(runs[1]) and not groups_of(runs[1]) & first
        third = kill_one(tmp_path)
        assert third and not third & (first | groups_of(runs[1]))
        for run in runs:
            assert run.communicate("still here\n", timeout=60)[0] == "still here\n"
    finally:
        for run in runs:
            run.kill()
            run.wait()
    for group in third:  # its number may not come again
        group.rmdir()
