"""E1, E3, E4, E7, E8, E10, E12: processes, IPC, and what two tenants share."""
import ctypes
import fcntl
import os
import socket
import subprocess
import time
from dataclasses import replace

from rig.case import Acts, Broken, Escape, judge
from rig.host import LIBC, descendants, kill_tree, link

from .space import tiocsti_of_exec


def everybody(battery, case):
    """E1: signals by number, then to everybody; the victim and the host's process are looked at after each case."""
    text = judge(battery.outside(case), battery.inside(case))
    acts = battery.inside(replace(case, verb="kill-all"))
    if "alive" not in acts.facts:
        raise Broken(f"kill(-1) was not tried: {acts}")
    return text + "; kill(-1) and kill(1) ended nobody outside"


def will_not_stop(battery, case):
    """E3: SIGTERM is ignored by all of 40 processes; the end is certain anyway."""
    case = replace(case, argument=lambda b: "40")
    # The control: nobody of them goes by SIGTERM.
    process = subprocess.Popen(["unshare", "-p", "-f", "--kill-child", battery.probe, *battery.arguments(case)],
                               stdout=subprocess.PIPE, text=True)
    if not process.stdout.readline().startswith("fact ready"):
        raise Broken("the control never came up")
    pids = list(descendants(process.pid))
    for pid in pids:
        os.kill(pid, 15)
    alive = [pid for pid in pids if pid in descendants(process.pid)]
    kill_tree(process.pid)
    process.communicate()
    if len(alive) < 40:
        raise Broken(f"only {len(alive)} ignore SIGTERM")
    for given in (5, 30, 120):  # on a busy machine they are not all there so soon
        done = battery.run([*battery.box("--timeout", f"{given}s", "--ro-bind", battery.probe, "/opt/probe"), "--", "/opt/probe",
                            *battery.arguments(case)])
        if "fact ready" in done.stdout:
            break
    else:
        raise Broken(f"it never came up inside: {done.stderr}")
    # Who is left is what every case is asked for.
    return f"{len(alive)} that ignore SIGTERM were ended with the sandbox (status {done.returncode})"


def storm(battery, case):
    """E4: pid 1 outside does not reap (the control), ours does; then its main process ends with children alive."""
    orphans = 1000 if os.environ.get("SPACED_VM") else 5000  # an emulated processor takes a minute for those
    case = replace(case, argument=lambda b: f"{orphans}:500:60", control=("-p", "-f", "--kill-child", "--mount-proc"))
    few = replace(case, argument=lambda b: "50:5:1")
    battery.controls.pop(case.id, None)
    outside = battery.outside(few)
    start = time.monotonic()
    inside = battery.inside(case)
    if inside.facts.get("children") != "500":
        raise Broken(f"not all children were there: {inside.facts}")
    return judge(outside, inside) + f"; {orphans} reaped, 500 children ended with it ({time.monotonic() - start:.0f} s)"


class Ipc:
    """A segment, semaphores, a queue of each kind on the host."""
    KEY = 0x5bacebad

    def __init__(self):
        self.key = self.KEY + os.getpid()
        self.queue = f"/battery-{os.getpid()}"
        rt = ctypes.CDLL("librt.so.1", use_errno=True)
        self.ids = [LIBC.shmget(self.key, 4096, 0o1666), LIBC.semget(self.key, 1, 0o1666), LIBC.msgget(self.key, 0o1666)]
        self.q = rt.mq_open(self.queue.encode(), os.O_CREAT | os.O_RDWR, 0o666, None)
        self.unlink = rt.mq_unlink
        if min(self.ids) < 0 or self.q < 0:
            raise Broken(f"no IPC on the host: {self.ids} {self.q} {os.strerror(ctypes.get_errno())}")

    def close(self):
        LIBC.shmctl(self.ids[0], 0, None)
        LIBC.semctl(self.ids[1], 0, 0)
        LIBC.msgctl(self.ids[2], 0, None)
        os.close(self.q)
        self.unlink(self.queue.encode())


def ipc(battery, case):
    host = Ipc()
    try:
        case = replace(case, argument=lambda b: f"{host.key:#x}:{host.queue}")
        battery.controls.pop(case.id, None)
        return judge(battery.outside(case), battery.inside(case))
    finally:
        host.close()


def abstract(battery, case):
    name = f"battery-{os.getpid()}-{os.urandom(4).hex()}"
    with socket.socket(socket.AF_UNIX) as s:
        s.bind("\0" + name)
        s.listen(8)
        case = replace(case, argument=lambda b: name)
        battery.controls.pop(case.id, None)
        return judge(battery.outside(case), battery.inside(case))


def shared_layers(battery, case):
    """E10: two tenants, and the host, on the same read-only files."""
    layer = battery.layer("E10", files=[("opt/shared", b"x" * 4096)])
    paths = ["/opt/shared", "/usr/bin/env", "/usr/lib", "/opt", "/etc/mime.types", "/etc"]
    host_paths = {"/opt/shared": f"{layer}/root/opt/shared", "/usr/bin/env": "/usr/bin/env"}
    options = ("--timeout", "60s", "--layer", layer, "--ro-bind", battery.probe, "/opt/probe")

    def box(verb):
        return [*battery.box(*options), "--", "/opt/probe", "E10", f"{verb}:{','.join(paths)}"]

    def neighbour():
        touched = battery.run([*battery.box(*options), "--", "/bin/sh", "-c",
                               "cat /opt/shared /etc/mime.types >/dev/null; /usr/bin/env >/dev/null; ls /usr/lib /opt "
                               "/etc >/dev/null; : </usr/bin/env"])
        if touched.returncode:
            raise Broken(f"the neighbour: {touched.stderr}")

    def host_reads():
        for path in [*host_paths.values()]:
            with open(path, "rb") as f:
                f.read(1)
        os.listdir("/usr/lib")

    def watched(who, act, argv):
        with battery.hold(argv) as (process, _):
            act()
            process.stdin.write("\n")
            process.stdin.flush()
            acts = Acts.parse(process.stdout.read())
        if not acts:
            raise Broken("the watcher said nothing")
        return {f"{name} ({who})" for name in acts.reached}, acts

    # The control: outside, one process sees another open the same files, and its lock is in the way.
    control_paths = ",".join(host_paths.values())
    seen, _ = watched("outside", host_reads, [battery.probe, "E10", f"watch:{control_paths}"])
    if not any(name.startswith("inotify") for name in seen):
        raise Broken("inotify outside sees nothing")
    escaped = set()
    seen, acts = watched("a tenant", neighbour, box("watch"))
    escaped |= seen
    seen, _ = watched("the host", host_reads, box("watch"))
    escaped |= seen
    with battery.hold(box("lock")) as (process, lines):
        used = battery.run(box("use"))
        inside = Acts.parse(used.stdout)
        if not inside:
            raise Broken(f"nobody tried the locks: {used.stderr}")
        escaped |= inside.reached
        for path in host_paths.values():
            with open(path) as f:
                try:
                    fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    escaped.add(f"a tenant's lock on the host's {path.replace(battery.work, '')}")
    if escaped:
        raise Escape("; ".join(sorted(escaped)))
    return f"nothing of a neighbour or the host is seen or locked ({acts.blocked.get('fanotify', '?')} for fanotify)"


def terminals(battery, case):
    """E5: on a terminal of the app's own making, and on one that `spacectl exec -t` has made."""
    text = judge(battery.outside(case), battery.inside(case))
    if battery.config.name == "host":
        text += "; in exec -t: " + tiocsti_of_exec(battery, case)
    return text


def orphans(battery, case):
    text = judge(battery.outside(case), battery.inside(case))
    # And from outside: nobody of the sandbox but its init has a parent that is not of it.
    argv = [*battery.box("--timeout", "60s"), "--", "/bin/sh", "-c",
            "(setsid sleep 50 & setsid sh -c 'sleep 50 & sleep 50' &) ; sleep 0.2; echo ready; read x"]
    with battery.hold(argv, "ready") as (process, _):
        ours = link("/proc/self/ns/pid")
        table = descendants(process.pid)
        inside = {pid for pid in table if link(f"/proc/{pid}/ns/pid") not in (ours, None)}
        stray = []
        for pid in inside:
            parent = int(open(f"/proc/{pid}/stat").read().rpartition(") ")[2].split()[1])
            if parent not in inside:
                stray.append(pid)
    if len(inside) < 4 or len(stray) != 1:
        raise Escape(f"processes with a parent outside: {len(stray)} of {len(inside)}; one is init")
    return text
