"""B6, B7, B9, B10: cgroups as the host sees them, paths of the host, and its handler of cores."""
import contextlib
import fcntl
import glob
import json
import os
import pathlib
import re
import shutil
from dataclasses import replace

from rig.case import Acts, Broken, Escape, judge, run_probe
from rig.host import read

from .setup import inside_pid


def release_agent(battery, case):
    files = glob.glob("/sys/fs/cgroup/*/release_agent")
    before = {f: read(f) for f in files}
    text = judge(battery.outside(case), battery.inside(case))
    if before != {f: read(f) for f in files}:
        raise Escape("a release_agent of the host has changed")
    return text


def membership(battery, case):
    """The groups of the sandbox before and after it has tried to leave them."""
    argv = [*battery.box("--timeout", "60s", "--pids", "64", "--ro-bind", battery.probe, "/opt/probe"), "--", "/bin/sh",
            "-c", "echo ready; read x; /opt/probe B7; echo fact ready; read x"]
    outside = battery.outside(case)
    with battery.hold(argv, "ready") as (process, _):
        pid = inside_pid(battery, process)
        before = read(f"/proc/{pid}/cgroup")
        process.stdin.write("\n")
        process.stdin.flush()
        lines = []
        for line in process.stdout:
            if line.startswith("fact ready"):
                break
            lines.append(line)
        after = read(f"/proc/{pid}/cgroup")
    if before != after:
        raise Escape(f"moved from {before!r} to {after!r}")
    lines_of = [line.split(":", 2) for line in before.splitlines()]
    limits = [path for _, kinds, path in lines_of if {"memory", "pids", "cpu"} & set(kinds.split(","))]
    for path in limits or [path for _, kinds, path in lines_of if not kinds]:
        if not battery.rootless and not re.search(r"/spaced/run-[0-9a-f]{5}-\d+$", path):
            raise Escape(f"not in groups of its own: {before!r}")
    return judge(outside, Acts.parse("".join(lines))) + "; membership unchanged"


def paths(battery, case):
    """In a layer, so that the bind of the probe itself is not what is found."""
    layer = battery.layer("B9", files=[("opt/probe", open(battery.probe, "rb").read())])
    os.chmod(f"{layer}/root/opt/probe", 0o755)
    case = replace(case, argument=lambda b: b.work)
    outside = battery.outside(case)
    done = battery.run([*battery.box("--timeout", "60s", "--layer", layer), "--", "/opt/probe", *battery.arguments(case)])
    return judge(outside, battery.said(done))


CORES = [pathlib.Path(f"/proc/sys/kernel/core_{name}") for name in ("pipe_limit", "pattern")]
CORES_BEFORE = pathlib.Path("/run/spaced-battery.lock")  # what they were while they are another's
CORES_HANDLER = pathlib.Path("/run/spaced-battery.cores")


@contextlib.contextmanager
def handler_of_cores():
    """The host gets one, as many distributions have (apport, systemd-coredump): the names of what has crashed. The kernel runs
    it with the mounts of the first process, hence not in our own /tmp; and waits for its end (core_pipe_limit)."""
    with CORES_BEFORE.open("a+") as lock:  # one at a time, or the other's would be put back for good
        fcntl.flock(lock, fcntl.LOCK_EX)
        put_back(lock)
        json.dump([path.read_text() for path in CORES], lock)
        lock.flush()
        try:
            CORES_HANDLER.mkdir(0o700)
            seen = CORES_HANDLER / "seen"
            seen.write_text("")
            (CORES_HANDLER / "handler").write_text(f'#!/bin/sh\ncat > /dev/null\necho "$1" >> {seen}\n')
            for path, value in zip(CORES, ("16", f"|/bin/sh {CORES_HANDLER}/handler %e")):
                path.write_text(value)
            yield lambda: seen.read_text().split()
        finally:
            put_back(lock)


def put_back(lock):
    lock.seek(0)
    before = lock.read()
    for path, value in zip(CORES, json.loads(before or "[]")):
        path.write_text(value)
    lock.truncate(0)
    shutil.rmtree(CORES_HANDLER, ignore_errors=True)


def heal_cores():
    """A run that was killed could not put them back: the next one does, before it looks at anything."""
    with contextlib.suppress(OSError), CORES_BEFORE.open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        put_back(lock)


def oom_and_cores(battery, case):
    text = run_probe(battery, case)
    if not os.access("/proc/sys/kernel/core_pattern", os.W_OK):
        return text + "; no handler of cores can be had here"
    crash = replace(case, verb="crashes")
    with handler_of_cores() as seen:
        done = battery.inside(replace(crash, argument=lambda b: "b10-inside"))
        if done.facts.get("core") is None:
            raise Broken("nothing has crashed inside")
        names = [name for name in seen() if name.startswith("b10-inside")]
        battery.controls.pop(case.id, None)
        battery.outside(replace(crash, argument=lambda b: "b10-outsid"))
        battery.controls.pop(case.id, None)
        control = {name[-1] for name in seen() if name.startswith("b10-outsid")}
    if names or done.reached:
        raise Escape(f"the host's handler of cores has run for {' '.join(names) or 'a crash inside'}")
    if not control:  # a container: the kernel looks for it among the host's files
        return text + "; no handler of cores can be had here"
    if control != set("abcd"):
        raise Broken(f"outside the host's handler of cores has run for {control}")
    return text + f"; the host's handler of cores runs for {len(control)} crashes outside, for none inside"
