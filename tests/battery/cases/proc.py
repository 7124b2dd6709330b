"""B6, B7, B9: cgroups as the host sees them, and paths of the host."""
import glob
import os
from dataclasses import replace

from rig.case import Acts, Escape, judge
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
        if not battery.rootless and not path.endswith(f"/run-{process.pid}"):
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
