"""`make bench` start: how long a fully confined /usr/bin/true takes next to the kernel's floor, bwrap, crun, runc and docker; freeze
and thaw; and what confinement costs a program that runs. start.c measures, this asks in turn, row by row, so that noise hits all
rows alike, and says which goal holds.

Rows of the first table run from before the first system call until the program has ended and is reaped. The floor (floor.c) is a
bare C program that makes the same namespaces and the same mounts and nothing else: no cgroup, no filter, no Landlock, no pid 1 of its
own. The spawner keeps sandboxes made ahead; their row begins when the program is known, and the rows "back to back" count their making,
with that of the network namespace and the removal of it all. bwrap has all namespaces, /usr, /proc, /dev, tmpfs, and neither cgroup, filter nor overlay; crun and runc have all namespaces with id
maps, cgroup limits, the same masks and an allow-list of the same system calls, on a plain folder instead of an overlay."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BUILD = Path(os.environ.get("SPACED_BUILD", "build")).resolve()
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "300"))
WARM_UP = 3
BASE = 1650000000  # first host id of the containers' maps


class Meter:
    def __init__(self, folder):
        folder.chmod(0o755)
        self.process = subprocess.Popen([BUILD / "tests/bench/start", str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def text(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"bench: `{line}` failed")
        return answer

    def ask(self, line):
        """Microseconds."""
        return [int(word) / 1000 for word in self.text(line).split()]

    def ask_in(self, pid, line):
        self.process.stdin.write(f"mounts {pid}\n")
        answer = self.ask(line)
        self.process.stdin.write("mounts 0\n")
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def quantile(samples, part):
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * part))]


def in_turn(meter, rows, rounds):
    """rows: {name: line}; {name: [column of samples]}"""
    samples = {name: [] for name in rows}
    for i in range(rounds + WARM_UP):
        for name, line in rows.items():
            answer = meter.ask_in(*line) if isinstance(line, tuple) else meter.ask(line)
            if i >= WARM_UP:
                samples[name].append(answer)
    return {name: list(zip(*values)) for name, values in samples.items()}


def goal(text, value, limit, form="{:.2f}"):
    print(f"  goal: {text:66} {form.format(value):>8}  {'holds' if value <= limit else 'MISSED'}")


def command(*words):
    return "run\t" + "\t".join(str(word) for word in words)


def bwrap():
    path = shutil.which("bwrap")
    return path and command(path, *"""--unshare-all --uid 1000 --gid 1000 --hostname bench --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib
        --symlink usr/lib64 /lib64 --proc /proc --dev /dev --tmpfs /tmp --tmpfs /run --dir /app --cap-drop ALL --new-session
        --die-with-parent --chdir / -- /usr/bin/true""".split())


def bundle(folder, runtime, names):
    """The runtime's own `spec`, changed to what our sandbox is."""
    folder.mkdir()
    shutil.copytree(folder.parent / "skeleton", folder / "rootfs", symlinks=True)
    for path in [folder / "rootfs", *(folder / "rootfs").rglob("*")]:
        os.chown(path, BASE, BASE, follow_symlinks=False)
    subprocess.run([runtime, "spec"], cwd=folder, check=True)
    spec = json.loads((folder / "config.json").read_text())
    ids = [{"containerID": 0, "hostID": BASE, "size": 2048}]
    spec["process"].update(terminal=False, args=["/usr/bin/true"], user={"uid": 1000, "gid": 1000}, cwd="/", noNewPrivileges=True,
                           capabilities={kind: [] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")})
    spec["root"]["readonly"] = False
    spec["hostname"] = "bench"
    spec["mounts"] = [m for m in spec["mounts"] if m["destination"] not in ("/sys", "/sys/fs/cgroup")]
    spec["mounts"] += [
        {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["bind", "ro", "nosuid", "nodev"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"]},
        {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"]}]
    linux = spec["linux"]
    linux["namespaces"] = [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "user", "cgroup")]
    linux["uidMappings"] = linux["gidMappings"] = ids
    linux["resources"] = {"memory": {"limit": 512 << 20, "swap": 512 << 20}, "cpu": {"quota": 200000, "period": 100000}, "pids": {"limit": 64}}
    linux["seccomp"] = {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64" if os.uname().machine == "x86_64" else "SCMP_ARCH_AARCH64"],
                        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]}
    (folder / "config.json").write_text(json.dumps(spec))
    return folder


def oci(folder, name, names):
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if not path:
        return None
    where = bundle(folder / name, path, names)
    return command(path, "--root", folder / f"{name}-state", "run", "--bundle", where, f"bench-{name}-{os.getpid()}")


class Unified:
    """crun refuses a host with both kinds of cgroups: there it gets a view of the v2 tree alone, and no limits, to its advantage."""

    def __init__(self, folder, line):
        config = folder / "crun" / "config.json"
        spec = json.loads(config.read_text())
        del spec["linux"]["resources"]
        config.write_text(json.dumps(spec))
        self.line = line.replace("\trun\t", "\t--cgroup-manager=cgroupfs\trun\t", 1)
        self.process = subprocess.Popen(["unshare", "-m", "sh", "-c", "umount -R -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup && echo && cat"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.process.stdout.readline()

    def works(self):
        return works(self.line, ["nsenter", "-m", "-t", str(self.process.pid)])


def docker():
    path = shutil.which("docker")
    if not path or subprocess.run([path, "image", "inspect", "busybox"], capture_output=True, check=False).returncode != 0:
        return None
    return command(path, "run", "--rm", "--network", "none", "--memory", "512m", "--cpus", "2", "--pids-limit", "64", "busybox", "true")


def works(meter_line, prefix=()):
    done = subprocess.run([*prefix, *meter_line.split("\t")[1:]], capture_output=True, text=True, check=False, env={"PATH": "/usr/sbin:/usr/bin:/bin"})
    return done.returncode == 0, done.stderr.strip()[-200:]


def bench_start(meter, folder):
    names = meter.text("names").split()
    rows = {"the kernel's floor": "floor-pool", "the floor, with a fresh network namespace": "floor", "sandbox_start()": "library-pool", "sandbox_start() of one made ahead": "shell",
            "sandbox_start(), fresh network namespace": "library", "by the spawner's verb, until exec": "spawner-start",
            "back to back, all counted": "batch", "back to back, made ahead, all counted": "batch-shell",
            "sandbox run": command(BUILD / "sandbox", "run", "--memory", "512M", "--cpus", "2", "--pids", "64", "--", "/usr/bin/true")}
    others = {"bwrap --unshare-all": bwrap(), "crun run": oci(folder, "crun", names), "runc run": oci(folder, "runc", names), "docker run": docker()}
    missing = {}
    for name, line in others.items():
        fine, why = works(line) if line else (False, "not here (for docker: no daemon answers, or no image busybox)")
        if not fine and line and name == "crun run":
            view = Unified(folder, line)
            name, line = "crun run, without limits (host is hybrid)", (view.process.pid, view.line)
            fine, why = view.works()
        if fine:
            rows[name] = line
        else:
            missing[name] = why
    samples = in_turn(meter, rows, ROUNDS)
    floor = quantile(samples["the kernel's floor"][0], 0.5)
    print(f"\nstart of a fully confined /usr/bin/true, {ROUNDS} rounds")
    print(f"  {'':44} {'p50':>9} {'p99':>9} {'min':>9}   p50 / floor")
    for name in rows:
        column = samples[name][0]
        print(f"  {name:44} {quantile(column, .5):6.0f} us {quantile(column, .99):6.0f} us {min(column):6.0f} us   {quantile(column, .5) / floor:6.2f}")
    for name, why in missing.items():
        print(f"  {name:44} not available: {why}")
    exec_column = samples["sandbox_start()"][1]
    print(f"  {'sandbox_start(): until the program is exec-ed':44} {quantile(exec_column, .5):6.0f} us {quantile(exec_column, .99):6.0f} us")
    gone = samples["sandbox_start()"][2]
    print(f"  {'sandbox_start(): until its cgroup is gone too':44} {quantile(gone, .5):6.0f} us {quantile(gone, .99):6.0f} us")
    ours = samples["sandbox_start()"][0]
    goal("sandbox_start() p50 <= 1.5 x the floor", quantile(ours, .5) / floor, 1.5)
    goal("sandbox_start() p99 <= 3 x its p50", quantile(ours, .99) / quantile(ours, .5), 3)
    ahead = samples["sandbox_start() of one made ahead"][0]
    goal("made ahead, p50 <= 1.5 x the floor", quantile(ahead, .5) / floor, 1.5)
    goal("made ahead, p99 <= 3 x its p50", quantile(ahead, .99) / quantile(ahead, .5), 3)
    if "bwrap --unshare-all" in rows:
        bare = quantile(samples["bwrap --unshare-all"][0], .5)
        print(f"  sandbox_start() p50 / bwrap: {quantile(ours, .5) / bare:.2f}")
        goal("made ahead, p50 <= 0.5 x bwrap", quantile(ahead, .5) / bare, 0.5)


def bench_freeze(meter):
    samples = in_turn(meter, {"through the cgroup table": "freeze", "by the spawner's verb": "spawner-freeze"}, ROUNDS)
    print(f"\nfreeze and thaw of a sleeping sandbox, {ROUNDS} rounds")
    print(f"  {'':44} {'freeze p50':>11} {'p99':>9} {'thaw p50':>11} {'p99':>9}")
    for name, (freeze, thaw) in samples.items():
        print(f"  {name:44} {quantile(freeze, .5):8.0f} us {quantile(freeze, .99):6.0f} us {quantile(thaw, .5):8.0f} us {quantile(thaw, .99):6.0f} us")
    for name, (freeze, thaw) in samples.items():
        goal(f"freeze p50 <= 100 us {name}", quantile(freeze, .5), 100, "{:.0f}")
        goal(f"thaw p50 <= 100 us {name}", quantile(thaw, .5), 100, "{:.0f}")


def bench_steady(meter):
    kinds = {"cpu": "arithmetic on 256 KiB", "tar": "tar of 4 MB of small files, into a pipe", "files": "stat, open and read small files",
             "messages": "a server's messages of 1 KiB: send, epoll_wait, recv", "blocks": "a database's pages of 4 KiB: pwrite, pread",
             "syscalls": "getpid, read, write, fstat in a loop"}
    samples = {kind: [] for kind in kinds}
    for i in range(ROUNDS + WARM_UP):
        for kind in kinds:
            answer = meter.ask(kind)
            if i >= WARM_UP:
                samples[kind].append(answer)
    print(f"\nsteady cost of confinement: the same program inside, outside, and outside behind a filter of one instruction, {ROUNDS} rounds")
    print(f"  {'':52} {'outside':>10} {'one instruction':>16} {'inside':>10}   inside / outside   / one instruction")
    for kind, text in kinds.items():
        inside, outside, filtered = (quantile(column, .5) for column in zip(*samples[kind]))
        print(f"  {text:52} {outside:7.0f} us {filtered:13.0f} us {inside:7.0f} us   {inside / outside:16.3f}   {inside / filtered:17.3f}")
    for kind, text in kinds.items():
        inside, outside, filtered = (quantile(column, .5) for column in zip(*samples[kind]))
        goal(f"{text} <= 1.03", inside / outside, 1.03, "{:.3f}")
        goal("   and <= 1.03 of the filter of one instruction", inside / filtered, 1.03, "{:.3f}")


def main():
    if os.geteuid() != 0:
        raise SystemExit("bench start: needs root")
    wanted = sys.argv[1:] or ["start", "freeze", "steady"]
    folder = Path(tempfile.mkdtemp(prefix="spaced-bench-", dir="/var/tmp"))
    meter = Meter(folder)
    try:
        meter.text("names")
        if "start" in wanted:
            bench_start(meter, folder)
        if "freeze" in wanted:
            bench_freeze(meter)
        if "steady" in wanted:
            bench_steady(meter)
        meter.close()
    finally:
        meter.process.kill()
        shutil.rmtree(folder, ignore_errors=True)


main()
