"""Group G: one app that takes all it can get, beside a victim."""
import ctypes
import os
import pathlib
import threading
import time
from dataclasses import replace

from rig.case import Inapplicable, judge
from rig.tenants import CPUS, DISK, LOG, MEMORY, PIDS, check, watched

MIB = 1 << 20
TOLERANCE = 1.05


def value(folder, *names):
    """The number in the first of these files that there is."""
    for name in names:
        try:
            return int((folder / name).read_text())
        except (OSError, ValueError):
            continue
    return None


def usage(folder):
    return value(folder, "memory.usage_in_bytes", "memory.current") or 0


class Sampled:
    """The largest of a number while something runs; the kernel's own peak where there is one."""

    def __init__(self, what):
        self.what, self.peak, self.end = what, 0, threading.Event()
        self.thread = threading.Thread(target=self.sample, daemon=True)

    def sample(self):
        while not self.end.wait(0.01):
            self.peak = max(self.peak, self.what() or 0)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.end.set()
        self.thread.join()


def memory_group(tenants):
    folder = tenants.group("memory")
    if folder is None:
        raise Inapplicable("this host has no memory controller")
    return folder


def bounded_memory(tenants, folder, act):
    """Runs `act` and checks that the app never had more than its limit and a twentieth."""
    with Sampled(lambda: usage(folder)) as sampled:
        result = act()
    peak = max(sampled.peak, value(folder, "memory.max_usage_in_bytes", "memory.peak") or 0)
    check(peak <= MEMORY * TOLERANCE, f"the app had {peak >> 20} MiB of {MEMORY >> 20} MiB")
    return result, peak


@watched(60)
def processes(tenants, case):
    """Bombs that end by themselves, then one that does not and ignores every signal."""
    text = judge(tenants.battery.outside(case), tenants.probe(case))
    pids = tenants.group("pids")
    tenants.run("/app/probe", "G1", "bomb", background=True)
    if pids:
        deadline = time.monotonic() + 60
        while (value(pids, "pids.current") or 0) < PIDS * 0.9:
            check(time.monotonic() < deadline, "the bomb does not go off")
            time.sleep(0.01)
    begin = time.monotonic()
    tenants.daemon.spacectl("space", "pause", "alice/attacker", check=True)
    while pids and pids.exists():
        check(time.monotonic() < begin + 60, "a fork bomb lives on after a minute")
        time.sleep(0.01)
    took = time.monotonic() - begin
    tenants.restart()
    return f"{text}; bomb killed in {took:.2f} s"


@watched(120)
def memory(tenants, case):
    """Each form alone; the kernel kills the probe, or all of the app, and nobody else."""
    outside = tenants.battery.outside(case)
    ends = {}
    most = 0
    for form in sorted(outside.reached):
        tenants.up()
        folder = memory_group(tenants)

        def act():
            return tenants.run("/app/probe", "G2", f"{case.argument(None)},{form}", timeout=60)
        done, peak = bounded_memory(tenants, folder, act)
        check(done is None or f"reached {form}" not in done[1], f"{form}: more than the limit")
        ends[form] = "whole app" if done is None else "the culprit" if "(EINTR)" in done[1] else "refused"
        most = max(most, peak)
    return f"{', '.join(f'{f}: {e}' for f, e in ends.items())}; at most {most >> 20} of {MEMORY >> 20} MiB"


def host_use(tenants):
    """Bytes on the host's disk of all volumes."""
    return sum(os.stat(p).st_blocks * 512 for p in (tenants.daemon.state / "volumes").glob("top-*"))


@watched(60)
def tmpfs(tenants, case):
    folder = tenants.group("memory")

    def act():
        return tenants.probe(case)
    inside = bounded_memory(tenants, folder, act)[0] if folder else act()
    return judge(tenants.battery.outside(case), inside)


@watched(90)
def disk(tenants, case):
    free = os.statvfs(tenants.daemon.state)
    free = free.f_bavail * free.f_frsize
    outside = tenants.battery.outside(case)
    inside = tenants.probe(case, timeout=80)
    text = judge(outside, inside)
    sparse = tenants.python("""
import os
f = os.open("/app/sparse", os.O_CREAT | os.O_RDWR)
try:
    os.ftruncate(f, 1 << 40)
    try:
        n = 0
        for i in range(400):
            n += os.pwrite(f, os.urandom(1 << 20), i << 31)
            os.fsync(f)
    except OSError as e:
        print(e.errno, n >> 20)
    else:
        print(0, n >> 20)
except OSError as e:
    print(e.errno, 0)
os.unlink("/app/sparse")
""")
    code, written = map(int, sparse.split())
    check(code in (27, 28, 122), f"{written} MiB in a sparse file of 1 TiB on a disk of {DISK >> 20} MiB")
    used = host_use(tenants)
    check(used < 2 * DISK * TOLERANCE + 16 * MIB, f"{used >> 20} MiB on the host for two disks of {DISK >> 20} MiB")
    now = os.statvfs(tenants.daemon.state)
    check(now.f_bavail * now.f_frsize > min(free, 256 * MIB), "the host's disk is full")
    tenants.restart()  # what is left on its disk is lost, as it should be
    return f"{text}; sparse file stopped at {written} MiB"


def slab_kib():
    fields = dict(line.split(":") for line in open("/proc/meminfo").read().splitlines())
    return int(fields["Slab"].split()[0])


def made_dentries(tenants, case):
    """The control; what other programs of the machine give back meanwhile may hide it once."""
    before = slab_kib()
    tenants.battery.controls.pop(case.id, None)
    tenants.battery.outside(replace(case, argument=lambda b: "100000,0,/app"))
    return slab_kib() - before > 10 << 10


@watched(60)
def dentries(tenants, case):
    """Names that are not there, as many as it can ask for: hundreds of MiB of dentries, if nobody counted them."""
    folder = memory_group(tenants)
    before = slab_kib()
    done, peak = bounded_memory(tenants, folder,
                                lambda: tenants.run("/app/probe", "G5", case.argument(None), timeout=8))
    grown = (slab_kib() - before) >> 10
    # a quarter of a GiB for all else that the machine does meanwhile
    check(grown < (MEMORY >> 20) + 256, f"the host's slab has grown by {grown} MiB")
    how = "done" if done and done[0] == 0 else "stopped by time" if done else "the app was killed"
    if not any(made_dentries(tenants, case) for _ in range(3)):
        raise Inapplicable("100000 names that are not there take nothing of this kernel's memory")
    return f"{how}: at most {peak >> 20} of {MEMORY >> 20} MiB, host's slab {grown:+} MiB"


def log_files(tenants, owner, name):
    space = tenants.daemon.show(owner, name)["_id"]
    return list((tenants.daemon.state / "logs").glob(f"run-{space}-*"))


def cpu_seconds(pids):
    ticks = 0
    for pid in pids:
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


FLOOD = """
import os, sys, time
out = os.open(f"/proc/{os.getppid()}/fd/1", os.O_WRONLY)
blocks = {"lines": b"x" * 120 + b"\\n", "bytes": b"1\\n", "nul": bytes(4096), "ansi": b"\\x1b[2J\\x1b]0;t\\x07\\x1b[31m" * 99,
          "endless": b"y" * 65536}
block = blocks[sys.argv[1]]
block *= 65536 // len(block)
end, n = time.monotonic() + 2, 0
while time.monotonic() < end or n < 1 << 20:
    n += os.write(out, block)
print(n)
"""


@watched(60)
def logs(tenants, case):
    """Into the app's own standard output, each way for two seconds; the budget is for all of them together."""
    space = tenants.daemon.show("alice", "attacker")["_id"]
    tenants.restart()  # a fresh budget
    monitors = tenants.daemon.monitors(space)
    before, begin = cpu_seconds(monitors), time.monotonic()
    sent = sum(int(tenants.python(FLOOD, kind)) for kind in ("endless", "lines", "bytes", "nul", "ansi"))
    busy = (cpu_seconds(monitors) - before) / (time.monotonic() - begin)
    size = sum(p.stat().st_size for p in log_files(tenants, "alice", "attacker"))
    check(sent > 2 * LOG, f"the flood is a trickle: {sent} bytes")
    generations = len(log_files(tenants, "alice", "attacker"))
    check(size <= generations * (LOG + 65536), f"{size} bytes of log in {generations} files, {LOG} were given")
    check(busy < 0.5, f"copying the log takes {busy:.0%} of a CPU")
    tail = tenants.daemon.spacectl("space", "logs", "alice/attacker", check=True, timeout=30)[1]
    check("dropped" in tail or "the log is full" in tail, "nobody says that something was dropped")
    return f"{sent >> 20} MiB sent, {size >> 20} MiB kept, monitor at {busy:.0%} of a CPU"


@watched(60)
def cpu(tenants, case):
    folder = tenants.group("cpu")
    if folder is None:
        raise Inapplicable("this host has no cpu controller")
    storm = threading.Thread(target=tenants.run, args=("/app/probe", "G7", case.argument(None)), daemon=True)
    storm.start()

    def throttled():
        stat = dict(line.split() for line in (folder / "cpu.stat").read_text().splitlines())
        return int(stat.get("nr_throttled", 0))

    def used():
        """What was used by some moment between the two that are said with it: the look itself takes time."""
        before = time.monotonic()
        return before, cpu_seconds((folder / "cgroup.procs").read_text().split()), time.monotonic()
    time.sleep(0.5)  # all eight are there
    windows, last, stops = [], used(), throttled()
    for _ in range(int(case.argument(None)) - 2):
        time.sleep(1)
        now = used()
        windows.append((now[1] - last[1]) / (now[2] - last[0]))
        last = now
    storm.join()
    # one period's quota may be saved up, and a window begins and ends within a period
    check(max(windows) < CPUS + 0.15, f"{max(windows):.2f} CPUs in a window of a second, {CPUS} were given")
    if throttled() == stops:
        raise Inapplicable("this machine is so busy that eight loops do not get the little that they may have")
    return "CPUs in windows of a second: " + " ".join(f"{w:.2f}" for w in windows)


STORM = """
import os, time
fd = os.open("/app/storm", os.O_CREAT | os.O_RDWR, 0o600)
try:
    direct = os.open("/app/storm-direct", os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o600)
except OSError:
    direct = -1
import mmap
block, end, n = mmap.mmap(-1, 1 << 20), time.monotonic() + 4, 0
while time.monotonic() < end or n <= 10:
    os.pwrite(fd, os.urandom(4096), (n % 1000) << 12)
    os.fsync(fd)
    if direct >= 0:
        os.pwrite(direct, block, (n % 16) << 20)
    n += 1
print(n)
"""


@watched(60)
def storm(tenants, case):
    text = judge(tenants.battery.outside(case), tenants.probe(case))
    times, wrong = [], []
    end = threading.Event()

    def victim():
        while not end.wait(0.05):
            begin = time.monotonic()
            answer = tenants.daemon.get("bob", "victim", "/disk", timeout=30)
            times.append(time.monotonic() - begin)
            if answer.text != tenants.first:
                wrong.append(answer.text)
    thread = threading.Thread(target=victim)
    thread.start()
    try:
        rounds = int(tenants.python(STORM))
    finally:
        end.set()
        thread.join()
    check(rounds > 10, f"only {rounds} writes: no storm")
    check(times and not wrong, f"the victim's disk: {wrong[:2]}")
    p99 = sorted(times)[int(len(times) * 0.99)] * 1000
    return f"{text}; {rounds} flushes in 4 s, the victim's own flush p99 {p99:.0f} ms"


READ = """
import os, time
end, n = time.monotonic() + 4, 0
def more():
    return time.monotonic() < end or n < 1 << 27
while more():
    for folder, _, files in os.walk("/usr/lib"):
        for name in files:
            try:
                with open(os.path.join(folder, name), "rb", 0) as f:
                    while more() and (b := f.read(1 << 20)):
                        n += len(b)
            except OSError:
                pass
    with open("/app/big", "wb") as f:
        for _ in range(32):
            n += f.write(os.urandom(1 << 20))
print(n)
"""


@watched(60)
def page_cache(tenants, case):
    read, peak = bounded_memory(tenants, memory_group(tenants), lambda: int(tenants.python(READ)))
    check(read > MEMORY // 4, f"only {read >> 20} MiB read: no pollution")
    return f"{read >> 20} MiB read and written, at most {peak >> 20} of {MEMORY >> 20} MiB in its group"


INOTIFY = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
fds = []
while (fd := libc.inotify_init()) >= 0 and len(fds) < 100000:
    fds.append(fd)
n, code = len(fds), ctypes.get_errno()
made = 0
while fds and made < 2000000:
    os.makedirs(f"/tmp/w/{made}", exist_ok=True)
    if libc.inotify_add_watch(fds[0], f"/tmp/w/{made}".encode(), 2) < 0:
        break
    made += 1
    if made > 3000:
        break
nested = [libc.epoll_create1(0)]
class Event(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("events", ctypes.c_uint32), ("data", ctypes.c_uint64)]
deep = 0
for _ in range(40):
    fd = libc.epoll_create1(0)
    if libc.epoll_ctl(fd, 1, nested[-1], ctypes.byref(Event(1, 0))) < 0:
        break
    nested.append(fd)
    deep += 1
print(n, code, made, deep)
import time
time.sleep(float(__import__("sys").argv[1]))
"""


@watched(60)
def watches(tenants, case):
    """Numbers that the kernel counts per user: the attacker's are not the victim's, nor the host's."""
    text = judge(tenants.battery.outside(case), tenants.probe(case))
    holder = threading.Thread(target=tenants.run, args=("python3", "-c", INOTIFY, "3"), daemon=True)
    holder.start()
    time.sleep(1.5)  # it holds all it could get for three seconds
    # the host's root can still have one, and so can every other app
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init()
    check(fd >= 0, f"the host has no inotify any more: {os.strerror(ctypes.get_errno())}")
    os.close(fd)
    other = tenants.battery.run([*tenants.battery.box(), "--", "python3", "-c",
                                 "import ctypes; print(ctypes.CDLL(None).inotify_init() >= 0)"])
    check(other.stdout.strip() == "True", "another sandbox has no inotify any more")
    holder.join(30)
    instances, code, made, deep = map(int, tenants.python(INOTIFY, "0").split())
    check(instances < 100000 and deep < 40, "no limit on inotify or on nested epoll")
    return f"{text}; {instances} inotify ({os.strerror(code)}), {made} watches, epoll {deep} deep"

