"""The host around a case: canaries that nobody may touch, and counts of what could be left behind. Only what this run
has made is counted, so that other programs of the machine do not disturb: the battery has a mount namespace of its own,
a /tmp of its own in it, and adopts every process that loses its parent."""
import ctypes
import glob
import hashlib
import os
import pathlib
import subprocess
import time

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_CHILD_SUBREAPER = 36
SETTLE_S = 60  # the end of a network namespace is the kernel's own time
SETTINGS = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug",
            "/proc/sys/kernel/sysrq", "/proc/sys/vm/overcommit_memory", "/proc/sys/vm/panic_on_oom",
            "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname")


def read(path):
    try:
        return pathlib.Path(path).read_text(errors="replace")
    except OSError:
        return None


def sha256(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def adopt_orphans():
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def parents():
    """{pid: (parent, state, name)} of all processes."""
    found = {}
    for stat in glob.glob("/proc/[0-9]*/stat"):
        text = read(stat)
        if text:
            head, _, tail = text.rpartition(") ")
            pid, _, name = head.partition(" (")
            state, parent = tail.split()[:2]
            found[int(pid)] = (int(parent), state, name)
    return found


def descendants(of=None):
    """{pid: name} of the living processes below one (us); zombies are not counted: they are nobody's any more."""
    table = parents()
    found, new = {}, {of or os.getpid()}
    while new:
        new = {pid for pid, (parent, _, _) in table.items() if parent in new}
        found.update({pid: table[pid][2] for pid in new if table[pid][1] != "Z"})
    return found


def kill_tree(pid):
    """SIGKILL to a process that we have started and to all below it."""
    for one in [pid, *descendants(pid)]:
        try:
            os.kill(one, 9)
        except OSError:
            pass


class Host:
    def __init__(self, work, programs):
        self.secret = f"{work}/secret"
        with open(self.secret, "w", opener=lambda p, f: os.open(p, f, 0o600)) as f:
            f.write(os.urandom(32).hex())
        self.programs = {str(p): sha256(p) for p in programs}
        self.secret_hash = sha256(self.secret)
        self.settings = {path: read(path) for path in SETTINGS}
        # A process of the host with a word on its command line, and one that shall survive every kill().
        self.word = f"spaced-battery-canary-{os.getpid()}"
        self.process = subprocess.Popen(["/bin/sh", "-c", "while :; do sleep 1000; done", self.word])

    def close(self):
        kill_tree(self.process.pid)
        self.process.wait()

    def harmed(self):
        """What has happened to the canaries, in words."""
        wrong = [f"{p} has changed" for p, before in self.programs.items() if sha256(p) != before]
        if sha256(self.secret) != self.secret_hash or os.stat(self.secret).st_mode & 0o777 != 0o600:
            wrong.append("the secret file has changed")
        wrong += [f"{path} has changed" for path, before in self.settings.items() if read(path) != before]
        if self.process.poll() is not None:
            wrong.append("a process of the host was killed")
        return wrong

    def kept(self):
        """What of this run is there now, as sets of names."""
        processes = descendants()
        # What nobody is in is being made or removed, or was left behind. They are named after slots, not after processes.
        groups = {g for tree in ("", "*/") for g in glob.glob(f"/sys/fs/cgroup/{tree}spaced/run-*")}
        return {
            "mounts": {line.split()[0] + " " + line.split()[4] for line in open("/proc/self/mountinfo")},
            "processes": {f"{name} {pid}" for pid, name in processes.items()},
            "network namespaces": {link(f"/proc/{pid}/ns/net") for pid in processes} - {None},
            "cgroups": {g for g in groups if not read(f"{g}/cgroup.procs")},
            "descriptors": {f for f in (link(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd"))
                            if f and not f.endswith("/fd")},
            "files in /tmp": set(os.listdir("/tmp")),
            "files in the cache": set(glob.glob("/var/cache/spaced-sandbox*/making-*")),
        }

    def left(self, before):
        """What is there now and was not before, after it had time to go; in words."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            now = self.kept()
            more = {kind: names - before[kind] for kind, names in now.items() if names - before[kind]}
            if not more or time.monotonic() > deadline:
                return [f"left behind: {kind}: {', '.join(sorted(names))[:300]}" for kind, names in more.items()]
            time.sleep(0.05)


def link(path):
    try:
        return os.readlink(path)
    except OSError:
        return None
