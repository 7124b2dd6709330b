"""A2 to A8, A10: attacks on the starting of a sandbox, by what an image, a volume or a path holds."""
import os
import shutil
import subprocess
from dataclasses import replace

from rig.case import Acts, Broken, Escape, judge
from rig.host import kill_tree, read

from .space import terminal_swapped, write_while_exec

NAMES = ("proc", "sys", "dev", "tmp", "usr", "run", "app", "etc", "home", "bin", "dev/pts", "dev/shm", "proc/sys")
CANNOT = 125  # `sandbox run`: the sandbox cannot be made
NO_PROGRAM = (126, 127)  # it is made, and the command cannot be executed, or is not there


def tree(path):
    """Everything below a folder, with what can change."""
    return {os.path.join(at, name): os.lstat(os.path.join(at, name)).st_mode
            for at, folders, files in os.walk(path) for name in folders + files}


class Canary:
    """A folder of the host that links lead to: nothing may be made or mounted in it."""

    def __init__(self, battery):
        self.path = battery.folder("canary")
        os.chmod(self.path, 0o777)  # modes are not what shall protect it
        with open(f"{self.path}/file", "w") as f:
            f.write("the host's\n")
        os.chmod(f"{self.path}/file", 0o666)
        self.before = tree(self.path), read(f"{self.path}/file")

    def check(self, what):
        if (tree(self.path), read(f"{self.path}/file")) != self.before:
            raise Escape(f"{what}: the host's folder has changed: {sorted(set(tree(self.path)) ^ set(self.before[0]))}")


def start_with(battery, case, *options):
    """A start with a hostile part: refused with a reason (its text), or up and without a way to the host (None)."""
    look = replace(case, verb="A2", argument=lambda b: b.host.secret)
    done = battery.run([*battery.box("--timeout", "60s", "--ro-bind", battery.probe, "/opt/probe", *options), "--",
                        "/opt/probe", *battery.arguments(look)])
    if done.returncode in (CANNOT, *NO_PROGRAM) and done.stderr.startswith("sandbox: "):
        return done.stderr.strip()
    # The program inside may not even be found: an image without /bin is no escape.
    acts = Acts.parse(done.stdout, done.stderr)
    if not acts:
        raise Broken(f"neither started nor refused (status {done.returncode}): {done.stderr[-300:]}")
    if acts.reached:
        raise Escape(f"{' '.join(options)}: {', '.join(acts.reached)}")
    if acts.facts.get("null") != "1" or acts.facts.get("proc") != "1":
        raise Escape(f"{' '.join(options)}: /dev or /proc inside is not what it should be: {acts.facts}")
    return None


def hostile_names(battery, case):
    """A2, A4, A6: a layer, and the writable volume of an earlier run, in which what the launcher needs is a symlink."""
    canary = Canary(battery)
    wanted = {"A4": ("dev", "dev/pts", "dev/shm", "dev/null"), "A6": ("dev/console", "dev/pts", "dev/pts/0", "dev/tty",
              "dev/ptmx")}.get(case.id, NAMES)
    refused = tried = 0
    for name in wanted:
        for n, target in enumerate((canary.path, "/", "../" * 12 + canary.path[1:])):
            where = battery.layer(f"{case.id}-{name.replace('/', '-')}-{n}", (name, target))
            # The control: without walls the name does lead to the host.
            if not os.path.isdir(os.path.realpath(f"{where}/root/{name}")):
                raise Broken(f"{where}/root/{name} leads nowhere")
            for options in [("--layer", where), ("--top", where)]:
                if options[0] == "--top":
                    for at, folders, files in os.walk(where):
                        for entry in folders + files + ["."]:
                            os.lchown(os.path.join(at, entry), battery.owner, battery.owner)
                why = start_with(battery, case, *options)
                refused += why is not None
                tried += 1
                canary.check(f"{name} -> {target} by {options[0]}")
            shutil.rmtree(where)
    if not refused and case.id != "A6":
        raise Broken("not one was refused")
    more = "; " + terminal_swapped(battery) if case.id == "A6" and battery.config.name == "host" else ""
    return f"{tried} images: {refused} refused, {tried - refused} started, resolved inside" + more


def rename_race(battery, case):
    """A3: a folder is exchanged with a symlink while targets are made in it."""
    root = battery.folder("race")
    canary = Canary(battery)
    for name in ("volume/swap",):
        os.makedirs(f"{root}/{name}", exist_ok=True)
    os.symlink(canary.path, f"{root}/volume/link")
    walls = battery.walls

    def made(verb, times):
        done = subprocess.run([walls, verb, root, str(times)], capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise Broken(f"walls {verb}: {done.stderr}")
        return Acts.parse(done.stdout).facts

    for _ in range(20):  # on a busy machine both sides of the race may have their turn only once
        control = made("naive", 3000)
        outside = [n for n in os.listdir(canary.path) if n.startswith("n")]
        if outside:
            break
    else:
        raise Broken(f"the race was never won without walls: {control}")
    for name in outside:
        os.rmdir(f"{canary.path}/{name}")
    for _ in range(20):
        facts = made("targets", 10000)
        if int(facts["made"]):
            break
    else:
        raise Broken("not one target was made")
    canary.check("a target was made outside")
    # And real starts, whose binds go through the volume that a neighbour plays with.
    volume = battery.volume("race/volume")
    race = subprocess.Popen([walls, "race", f"{volume}/swap", f"{volume}/link"])
    up = 0
    try:
        for i in range(30):
            up += start_with(battery, case, "--bind", volume, "/opt/volume", "--ro-bind", battery.probe,
                             f"/opt/volume/swap/s{i}/target") is None
    finally:
        race.kill()
        race.wait()
    canary.check("a start made something outside")
    shutil.rmtree(root)
    return (f"{facts['made']} of 10000 targets made, none outside (without walls {len(outside)} of 3000 were); "
            f"{up} of 30 starts came up")


def null_swapped(battery, case):
    """A5: the image's /dev/null, then the host's own, is something else than the null device; and the masks."""
    canary = Canary(battery)
    start_with(battery, case, "--layer", battery.layer("A5", ("dev/null", "/proc/sys/kernel/core_pattern"),
                                                       ("dev/zero", f"{canary.path}/file")))
    canary.check("/dev/null -> core_pattern in an image")
    disguises = {
        "a symlink": 'ln -s /proc/sys/kernel/core_pattern "$D/null"',
        "a file": 'cp "$F" "$D/null"',
        "another device": 'mknod "$D/null" c 1 8',
        "a bind of a file": ': >"$D/null" && mount --bind "$F" "$D/null"',
    }
    script = ('D=$(mktemp -d) F=$1; for d in zero full random urandom tty ptmx; do cp -a /dev/$d "$D"; done;'
              'mkdir "$D/pts" "$D/shm"; %s && mount --bind "$D" /dev || exit 99; shift; "$@" </dev/zero; s=$?;'
              'umount -l /dev; umount -l "$D/null" 2>/dev/null; rm -r "$D"; exit $s')
    for what, make in disguises.items():
        argv = ["unshare", "-m", "--propagation", "private", "sh", "-c", script % make, "sh", f"{canary.path}/file",
                *battery.box("--timeout", "60s"), "--", "/bin/true"]
        done = battery.run(argv)
        if done.returncode == 0:
            raise Escape(f"the host's /dev/null is {what}, and was bound")
        if done.returncode != CANNOT or "null" not in done.stderr:
            raise Broken(f"{what}: status {done.returncode}: {done.stderr[-300:]}")
        canary.check(f"/dev/null is {what}")
    return "image and 4 disguises of the host's null; masks: " + judge(battery.outside(case), battery.inside(case))


def maps(pid):
    return [read(f"/proc/{pid}/{name}") for name in ("uid_map", "gid_map", "oom_score_adj", "setgroups")]


def inside_pid(battery, process):
    """A process of a box as the host sees it."""
    from rig.host import descendants, link
    ours = link("/proc/self/ns/pid")
    for pid in sorted(descendants(process.pid), reverse=True):
        if link(f"/proc/{pid}/ns/pid") not in (ours, None):
            return pid
    raise Broken("no process inside")


def mounts_over_proc(battery, case):
    """A7: a volume over /proc or what is in it, straight and by a link in the image, while the launcher sets up."""
    canary = Canary(battery)
    volume = battery.volume("A7")
    for name in ("uid_map", "oom_score_adj", "attr"):
        with open(f"{volume}/{name}", "w") as f:
            f.write("")
    refused = 0
    for target in ("/proc", "/proc/self", "/proc/self/attr", "/proc/1", "/proc/sys", "/dev", "/dev/shm", "/sys"):
        if start_with(battery, case, battery.bind, volume, target) is None:
            raise Escape(f"a volume over {target}")
        refused += 1
    links = 0
    for target in ("/proc", "/proc/self", "/proc/1", "/proc/sys/kernel", "/dev"):
        layer = battery.layer(f"A7-{links}", ("data", target))
        argv = [*battery.box("--timeout", "60s", "--layer", layer, battery.bind, volume, "/data"), "--", "/bin/sh", "-c",
                "echo ready; read x"]
        links += 1
        try:
            with battery.hold(argv, "ready") as (process, _):
                uid, gid, oom, groups = maps(inside_pid(battery, process))
                check_maps(battery, uid, gid, oom, groups)
        except Broken as e:
            if "sandbox: " not in str(e):
                raise
            refused += 1
    canary.check("mounts over /proc")
    if any(read(f"{volume}/{name}") for name in ("uid_map", "oom_score_adj", "attr")):
        raise Escape("the launcher wrote into the attacker's files")
    with battery.hold([*battery.box("--timeout", "60s"), "--", "/bin/sh", "-c", "echo ready; read x"], "ready") as (p, _):
        check_maps(battery, *maps(inside_pid(battery, p)))
    return f"{refused} refused; ids and oom score are really set"


def check_maps(battery, uid, gid, oom, groups):
    wanted = 1 if battery.rootless else 2
    for text in (uid, gid):
        lines = [line.split() for line in text.splitlines()]
        if len(lines) != wanted or any(int(line[1]) == 0 for line in lines):
            raise Escape(f"the id map is {text!r}")
    if not battery.rootless and int(oom) != 500:
        raise Escape(f"oom_score_adj is {oom!r}")
    if battery.rootless and groups.strip() != "deny":
        raise Escape("setgroups is not denied")


def source_swapped(battery, case):
    """A8: the launcher holds what it has checked; the path leads elsewhere when it mounts."""
    told = []
    for verb in ("swapped", "swapped-rootless"):
        if verb == "swapped" and battery.rootless:
            continue
        base = battery.folder(f"A8-{verb}")
        os.chmod(base, 0o755)
        for name in ("checked", "other"):
            os.mkdir(f"{base}/{name}")
            with open(f"{base}/{name}/name", "w") as f:
                f.write(name + "\n")
        shim = [str(battery.tools / "shim"), battery.config.shim] if battery.config.shim else []
        process = subprocess.Popen([*shim, battery.walls, verb, f"{base}/checked", f"{base}/other"],
                                   env=battery.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        out = ""
        for line in process.stdout:
            out += line
            if line.startswith("fact exchange"):
                break
        os.rename(f"{base}/checked", f"{base}/away")
        os.rename(f"{base}/other", f"{base}/checked")
        # The control: whoever goes by the path gets the other one.
        if read(f"{base}/checked/name") != "other\n":
            raise Broken("not exchanged")
        try:
            rest, err = process.communicate("\n", timeout=120)
        except subprocess.TimeoutExpired:
            kill_tree(process.pid)
            raise Broken("walls swapped did not end") from None
        acts = Acts.parse(out + rest, err)
        if process.returncode or not acts.blocked and not acts.reached:
            raise Broken(f"walls {verb}: status {process.returncode}: {err[-300:]}")
        if acts.reached:
            raise Escape(f"{verb}: " + ", ".join(acts.reached))
        if not acts.facts.get("shown") and "swapped" not in acts.facts.get("refused", ""):
            raise Broken(f"{verb}: {acts.facts}")
        told.append(f"{verb}: " + (f"`{acts.facts['shown']}` was mounted" if "shown" in acts.facts else "refused"))
        shutil.rmtree(base)
    return "; ".join(told)


FOLDERS = ("/proc/self/fd/3", "/proc/self/fd/7/../../..", "/proc/self/fd/9/..", "/proc/1/cwd", "/proc/1/root/..",
           "/proc/self/cwd/../..", "/proc/self/root/../..", "/..", "/../../..", "/app/../../..", "/dev/fd/7",
           "/proc/self/cwd", "/proc/self/root/tmp")


def outer_cwd(battery, case):
    """A10: a working folder by way of what the caller has open."""
    case = replace(case, argument=lambda b: b.host.secret)
    cage = battery.folder("A10")
    shutil.copy(battery.probe, cage)
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        # The control: by such a descriptor one does get out of a chroot.
        done = subprocess.run(["/probe", "A10", battery.host.secret], capture_output=True, text=True,
                              preexec_fn=lambda: (os.chroot(cage), os.fchdir(root)))
        if "host file from the working folder" not in Acts.parse(done.stdout).reached:
            raise Broken(f"no way out of a chroot: {done.stdout} {done.stderr}")
        refused = 0
        for folder in FOLDERS:
            done = battery.run(["sh", "-c", 'exec 3</ 7</ 9</usr; exec "$@"', "sh", *battery.box(
                "--timeout", "60s", "--ro-bind", battery.probe, "/opt/probe", "--cwd", folder), "--", "/opt/probe",
                *battery.arguments(case)])
            if done.returncode == CANNOT:
                refused += 1
                continue
            acts = Acts.parse(done.stdout, done.stderr)
            if not acts:
                raise Broken(f"{folder}: status {done.returncode}: {done.stderr[-200:]}")
            if acts.reached or not acts.facts["cwd"].startswith("/") or acts.facts["cwd"].startswith("(unreachable)"):
                raise Escape(f"--cwd {folder}: {acts.facts['cwd']}: {', '.join(acts.reached)}")
    finally:
        os.close(root)
    return f"{len(FOLDERS)} folders: {refused} refused, {len(FOLDERS) - refused} inside the root"


def own_program(battery, case):
    """A11: the program that starts the sandbox, run from inside and opened to be written."""
    layer = battery.layer("A11", files=[("opt/script", b"#!/proc/self/exe probe\n")])
    os.chmod(f"{layer}/root/opt/script", 0o755)
    for argv in (["/proc/self/exe", "--help"], ["/opt/script"], ["/proc/1/exe", "--help"]):
        done = battery.run([*battery.box("--timeout", "60s", "--layer", layer), "--", *argv])
        if done.returncode not in NO_PROGRAM or ": exec `" not in done.stderr:
            raise Escape(f"{argv[0]} was run: status {done.returncode}: {done.stdout[:100]}")
    more = "; " + write_while_exec(battery) if battery.config.name == "host" else ""
    return judge(battery.outside(case), battery.inside(case)) + "; /proc/self/exe is no program inside" + more
