"""The daemon of an ordinary user: with subordinate ids (subuid(5)) and without. The test needs root to become that user."""
import contextlib
import fcntl
import json
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from apps import app_files, static_files
from harness import BUILD, ROOT, Spaced, cmdline, free_port, wait_for

UID = GID = 0  # of the account, once it is made
USER = f"spaced-test-{os.getpid()}"
SUBIDS = (2000000000 + os.getpid() % 2000 * 65536, 65536)  # clear of what useradd gives, of root's ranges, of another run

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root to become an ordinary user")


@contextlib.contextmanager
def subordinate_ids():
    """Entries for the user in /etc/subuid and /etc/subgid, and only those are taken away again."""
    line = f"{USER}:{SUBIDS[0]}:{SUBIDS[1]}\n"
    files = [Path("/etc/subuid"), Path("/etc/subgid")]

    def change(add):
        for path in files:
            with open(path, "a+", encoding="utf-8") as f:
                fcntl.flock(f, fcntl.LOCK_EX)
                f.seek(0)
                kept = [l for l in f if l != line] + ([line] if add else [])
                f.truncate(0)
                f.writelines(kept)

    change(True)
    try:
        yield
    finally:
        change(False)


@pytest.fixture(scope="module", autouse=True)
def account():
    """--system: with no subordinate ids of its own."""
    global UID, GID
    subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/bin/sh", USER], check=True)
    UID, GID = pwd.getpwnam(USER)[2:4]
    yield
    subprocess.run(["userdel", "--force", USER], check=True, capture_output=True)


def become(tun=None, group=None, twice=None):
    """`tun`: a device that stands in for /dev/net/tun, which not every machine gives to everybody. `group`: a cgroup to
    start in. `twice`: a folder that has a mount of its own."""
    source, target = (tun, "/dev/net/tun") if tun else (twice, twice)
    own = ["unshare", "--mount", "sh", "-c", f'mount --bind "$0" {target} && exec "$@"', str(source)] if source else []
    if group:
        own = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / "spaced-daemon/cgroup.procs"), *own]
    return [*own, "setpriv", "--reuid", str(UID), "--regid", str(GID), "--clear-groups", "--",
            "env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/nonexistent"]


class Rootless(Spaced):
    def __init__(self, tun=None, group=None, twice=None, **options):
        super().__init__(become=become(tun, group, twice), **options)
        os.chown(self.home, UID, GID)


def uid_of(pid):
    """Of a process that is not a zombie; else -1."""
    status = Path(f"/proc/{pid}/status").read_text()
    return -1 if re.search(r"^State:\s+Z", status, re.M) else int(re.search(r"^Uid:\s+(\d+)", status, re.M).group(1))


def ours():
    """Processes of the user and of the subordinate ids."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            uid = uid_of(int(entry.name))
        except OSError:
            continue
        if uid == UID or SUBIDS[0] <= uid < SUBIDS[0] + SUBIDS[1]:
            found.append(int(entry.name))
    return found


@pytest.fixture(params=["range", "one"])
def rootless(request):
    """A daemon of an ordinary user; its `kind` says whether it has subordinate ids."""
    with contextlib.ExitStack() as stack:
        if request.param == "range":
            stack.enter_context(subordinate_ids())
        daemon = Rootless(memory="256M")
        daemon.kind = request.param
        stack.callback(daemon.close)
        yield daemon.start()


WHO = """json.dumps({"started": STARTED, "pid": os.getpid(), "uid": os.getuid()}).encode()"""


def whoami_app():
    files = app_files(body=WHO)
    files["app.py"] = "import time\nSTARTED = time.time()\n" + files["app.py"]
    return files


def test_push_serve_restart_stop(rootless, repo):
    rootless.push_ok(repo(files=static_files("no root here")), "alice", "site")
    assert rootless.get_ok("alice", "site").text == "no root here"
    work = repo(files=whoami_app())
    rootless.push_ok(work, "alice", "app")
    first = rootless.get_ok("alice", "app").json()
    assert first["uid"] == 1000
    assert rootless.stop(signal.SIGTERM) == 0
    rootless.start()
    assert rootless.get_ok("alice", "app").json() == first, "adopted: the same process still serves"
    rootless.kill_role("spawner")
    assert rootless.get_ok("alice", "app").json() == first
    work.commit("second", app_files("second"))
    rootless.push_ok(work, "alice", "app")
    wait_for("the new release", lambda: rootless.get_ok("alice", "app").text == "second")
    assert rootless.stop(signal.SIGINT) == 0
    wait_for("no process to be left", lambda: not ours())


def test_upgrade(rootless, repo):
    """The next program goes on in the namespaces of the one before."""
    rootless.push_ok(repo(files=static_files("no root here")), "alice", "site")
    work = repo(files=whoami_app())
    rootless.push_ok(work, "alice", "app")
    first = rootless.get_ok("alice", "app").json()
    for _ in range(2):
        before = rootless.pids()
        code, out, err = rootless.spacectl("upgrade")
        assert code == 0, (out, err)
        assert rootless.get_ok("alice", "app").json() == first
        assert rootless.get_ok("alice", "site").text == "no root here"
        assert not set(before["control"]) & set(rootless.pids("control"))
    work.commit("second", app_files("second"))
    rootless.push_ok(work, "alice", "app")
    wait_for("the new release", lambda: rootless.get_ok("alice", "app").text == "second")
    assert rootless.stop(signal.SIGINT) == 0
    wait_for("no process to be left", lambda: not ours())


def test_a_command_inside(rootless, repo):
    """It needs no privilege: the app's own pid 1 starts it."""
    rootless.push_ok(repo(files=app_files()), "alice", "app")
    rootless.get_ok("alice", "app")
    ctl = [*become(), str(BUILD / "spacectl"), "--state", str(rootless.state), "exec"]
    script = "cat; id -u; grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; echo again >/dev/stdout; exit 7"
    done = subprocess.run([*ctl, "alice/app", "--", "sh", "-c", script], input="in\n", text=True, capture_output=True, timeout=60)
    assert done.returncode == 7, done.stderr
    assert done.stdout == "in\n1000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nagain\n"
    done = subprocess.run([*ctl, "-t", "alice/app", "--", "tty"], stdin=subprocess.DEVNULL, text=True, capture_output=True,
                          timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "/dev/pts/0"), done.stderr
    # CVE-2019-5736: the program may belong to the one id that is mapped
    before = (BUILD / "spaced").read_bytes()
    attack = ("printf '#!/proc/self/exe\\n' >/tmp/x; chmod +x /tmp/x; ln -sf /proc/self/exe /tmp/y;"
              " for i in 1 2 3; do /tmp/x; : >/proc/1/exe; done")
    subprocess.run([*ctl, "alice/app", "--", "sh", "-c", attack], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    for program in ("/tmp/x", "/tmp/y"):
        done = subprocess.run([*ctl, "alice/app", "--", program], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        assert done.returncode == 126, done
    assert (BUILD / "spaced").read_bytes() == before


def test_killed_with_its_monitors(rootless, repo):
    """Whatever dies, the next start finds what still runs, also an app that nobody watches any more."""
    rootless.push_ok(repo(files=whoami_app()), "alice", "app")
    first = rootless.get_ok("alice", "app").json()
    rootless.process.kill()
    rootless.process.wait()
    wait_for("the roles to follow", lambda: not roles_of(rootless))
    rootless.start()
    assert rootless.get_ok("alice", "app").json() == first
    # the parent and all that is not inside a sandbox, at once
    def outside():
        """Kills them; the spawner may have replaced a monitor meanwhile."""
        found = [pid for pid in ours() if not inside(pid)]
        for pid in [rootless.process.pid, *rootless.pids("spawner"), *found]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        rootless.process.poll()
        return found
    wait_for("all outside to be gone", lambda: not outside())
    left = ours()
    assert left and all(inside(pid) for pid in left), "the app runs on alone"
    rootless.start()
    second = rootless.get_ok("alice", "app").json()
    assert second["started"] != first["started"], "without a monitor there is no way back: it is started again"
    wait_for("the old one to be gone", lambda: not set(left) & set(ours()))


OF_AN_APP = ("spaced-monitor", "spaced-gate", "spaced-resolver")  # they stay with it; a gate is where /dev/net/tun is everybody's


def roles_of(daemon):
    return [pid for pid in ours() if "--role" in cmdline(pid) and comm(pid) not in OF_AN_APP]


def comm(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()


def inside(pid):
    """In a pid namespace of its own: NSpid names it more than once."""
    with contextlib.suppress(OSError):
        return len(re.search(r"^NSpid:(.*)", Path(f"/proc/{pid}/status").read_text(), re.M).group(1).split()) > 1
    return False


def test_who_is_who(rootless, repo):
    rootless.push_ok(repo(files=whoami_app()), "alice", "app")
    rootless.get_ok("alice", "app")
    roles = {role: {uid_of(pid) for pid in pids} for role, pids in rootless.pids().items()}
    apps = {uid_of(pid) for pid in ours() if inside(pid)}
    assert uid_of(rootless.process.pid) == UID and roles["spawner"] == {UID}
    lent = range(SUBIDS[0], SUBIDS[0] + SUBIDS[1])
    if rootless.kind == "range":
        each = [roles["control"], roles["proxy"], roles["static"], apps, {UID}]
        assert all(len(uids) == 1 for uids in each) and len(set.union(*each)) == len(each), each
        assert all(uid in lent for uid in set.union(*each[:-1]))
    else:
        assert set.union(*roles.values(), apps) == {UID}


@pytest.fixture
def tun():
    """As udev makes it: for everybody."""
    if not os.path.exists("/dev/net/tun") or not shutil.which("slirp4netns"):
        pytest.skip("slirp4netns or /dev/net/tun is not here")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        node = Path(folder) / "tun"
        os.mknod(node, stat.S_IFCHR | 0o666, os.stat("/dev/net/tun").st_rdev)
        node.chmod(0o666)
        Path(folder).chmod(0o755)
        yield node


@pytest.mark.parametrize("kind", ["range", "one"])
def test_dependencies_over_slirp(kind, tun, repo):
    with contextlib.ExitStack() as stack:
        if kind == "range":
            stack.enter_context(subordinate_ids())
        daemon = Rootless(tun)
        stack.callback(daemon.close)
        daemon.start()
        files = {**app_files(body="__import__('itsdangerous').__version__.encode()"), "requirements.txt": "itsdangerous==2.2.0\n"}
        work = repo(files=files)
        daemon.push_ok(work, "alice", "app")
        assert daemon.get_ok("alice", "app").text == "2.2.0"
        # the layer is used again, and what a sandbox wrote can be removed
        work.commit("again", app_files("again"))
        daemon.push_ok(work, "alice", "app")
        wait_for("the new release", lambda: daemon.get_ok("alice", "app").text == "again")
        daemon.spacectl("space", "delete", "alice/app", check=True)
        assert daemon.stop(signal.SIGINT) == 0
        wait_for("no process to be left, slirp4netns neither", lambda: not ours())


def test_no_network_is_said(repo):
    """Without slirp4netns (here: without /dev/net/tun) an app runs all the same, and its log says what it lacks."""
    if subprocess.run([*become(), "test", "-w", "/dev/net/tun"]).returncode == 0:
        pytest.skip("/dev/net/tun is for everybody here")
    daemon = Rootless()
    try:
        daemon.start()
        daemon.push_ok(repo(files=app_files("alone")), "alice", "app")
        assert daemon.get_ok("alice", "app").text == "alone"
        assert "[spaced] no network: egress: /dev/net/tun" in daemon.logs("alice", "app")
    finally:
        daemon.close()


# --- what is missing is said

def test_missing_protections_are_listed(rootless):
    code, out, _ = rootless.spacectl("--json", "doctor")
    report = json.loads(out)
    checks = {c["check"]: c for c in report["checks"]}
    wanted = {"ids", "idmapped mounts", "cgroups", "disk limits", "kernel quotas", "out of memory"}
    lacking = {name for name, c in checks.items() if c["level"] == "lacks"}
    assert wanted <= lacking, lacking
    assert code == 0 and not any(c["level"] == "fails" for c in checks.values())
    for name in wanted:  # by a process that looks at the host beside the start
        wait_for("it in the log", lambda n=name: f"missing on this host: {n}: {checks[n]['found']}" in rootless.log_path.read_text())
    assert ("share one range" in checks["ids"]["found"]) == (rootless.kind == "range")
    probe = subprocess.run([*become(), str(BUILD / "sandbox"), "probe"], capture_output=True, text=True, check=True)
    for name in wanted:
        assert f"missing: {name}: {checks[name]['found']}" in probe.stdout
    assert f"ids {rootless.kind}" in probe.stdout


# --- the app cannot get at the daemon, though it may be the same user

REACH = r"""
import ctypes, errno, json, os, socket, sys
def attempt(act):
    try:
        return act() or "done"
    except OSError as error:
        return errno.errorcode[error.errno]
def connect(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
def unshare(flags):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) < 0:
        raise OSError(ctypes.get_errno(), "unshare")
def trace(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(0x4206, pid, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    libc.ptrace(17, pid, 0, 0)
def reach(state, pids):
    status = dict(l.split(":", 1) for l in open("/proc/self/status").read().splitlines() if ":" in l)
    return {
        "state": attempt(lambda: os.listdir(state) and None),
        "database": attempt(lambda: open(state + "/control/spaced.db", "rb").close()),
        "connect": attempt(lambda: connect(state + "/control.sock")),
        "monitor": attempt(lambda: os.listdir(state + "/sandboxes") and None),
        "signals": sorted({attempt(lambda: os.kill(pid, 0)) for pid in pids}),
        "trace": sorted({attempt(lambda: trace(pid)) for pid in pids[:1]}),
        "everybody": sorted(int(p) for p in os.listdir("/proc") if p.isdigit()),
        "userns": attempt(lambda: unshare(0x10000000)),
        "root": attempt(lambda: os.setuid(0)),
        "caps": status["CapEff"].strip() + status["CapPrm"].strip() + status["CapBnd"].strip(),
        "nnp": status["NoNewPrivs"].strip(), "seccomp": status["Seccomp"].strip(),
        "groups": status["Groups"].split(),
    }
"""


def reach_app(state):
    files = app_files(body=f'json.dumps(reach({str(state)!r}, json.loads(self.path[1:] or "[]"))).encode()')
    files["app.py"] = REACH + files["app.py"]
    return files


def test_app_cannot_reach_the_daemon(rootless, repo):
    rootless.push_ok(repo(files=reach_app(rootless.state)), "alice", "app")
    rootless.get_ok("alice", "app", "/[]")
    pids = [rootless.process.pid, *sum(rootless.pids().values(), [])]
    words = json.dumps(pids).replace(" ", "")
    # the same acts by the same user outside: they succeed
    script = f"{REACH}\nprint(json.dumps(reach({str(rootless.state)!r}, {words})))"
    outside = json.loads(subprocess.run([*become(), "/usr/bin/python3", "-c", script], capture_output=True, text=True,
                                        check=True).stdout)
    assert outside["state"] == outside["connect"] == outside["monitor"] == "done" and outside["userns"] == "done"
    assert "done" in outside["signals"] and rootless.process.pid in outside["everybody"]
    assert rootless.kind == "range" or outside["database"] == "done"
    assert "done" in outside["trace"]

    seen = rootless.get("alice", "app", f"/{words}").json()
    for act in ("state", "database", "connect", "monitor"):
        assert seen[act] in ("ENOENT", "EACCES"), (act, seen)
    assert set(seen["signals"]) <= {"ESRCH", "EPERM"}, seen
    assert set(seen["trace"]) <= {"ESRCH", "EPERM", "ENOSYS"}, seen
    assert len(seen["everybody"]) < 10 and max(seen["everybody"]) < 100, seen
    assert seen["userns"] != "done" and seen["root"] != "done"
    assert set(seen["caps"]) == {"0"} and seen["nnp"] == "1" and seen["seccomp"] == "2", seen
    assert rootless.healthy() and set(pids[1:]) == set(sum(rootless.pids().values(), []))


def test_another_user_is_refused(rootless):
    """The socket knows who calls also across user namespaces."""
    other = subprocess.run(["setpriv", "--reuid", "65533", "--regid", "65533", "--clear-groups", "--", str(BUILD / "spacectl"),
                            "--state", str(rootless.state), "user", "add", "mallory"], capture_output=True, text=True)
    assert other.returncode == 1
    assert rootless.spacectl("token", "add", "mallory")[0] != 0
    assert rootless.spacectl("user", "add", "bob")[0] == 0


def test_private_home(repo):
    """Roles with ids of their own reach a state folder below a home that is closed to them."""
    with subordinate_ids():
        daemon = Rootless()
        daemon.home.chmod(0o700)
        try:
            daemon.start()
            daemon.push_ok(repo(files=static_files("at home")), "alice", "site")
            assert daemon.get("alice", "site").text == "at home"
            daemon.push_ok(repo(files=app_files("at home")), "alice", "app")
            assert daemon.get_ok("alice", "app").text == "at home"
        finally:
            daemon.close()


@pytest.mark.parametrize("kind", ["range", "one"])
def test_a_mount_below_usr(kind, repo):
    """It cannot be left out by who is not root of the host, and overlayfs refuses it: /usr is shown as it is then."""
    with contextlib.ExitStack() as stack:
        if kind == "range":
            stack.enter_context(subordinate_ids())
        daemon = Rootless(twice="/usr/local/sbin")
        stack.callback(daemon.close)
        daemon.start()
        daemon.push_ok(repo(files=app_files("up")), "alice", "app")
        assert daemon.get_ok("alice", "app").text == "up"


def test_ids_that_are_taken_away(repo):
    """Files that belong to subordinate ids are of no use without them: said, not tried. And the other way round."""
    with contextlib.ExitStack() as stack:
        daemon = Rootless()
        stack.callback(shutil.rmtree, daemon.home, True)
        with subordinate_ids():
            daemon.start()
            assert daemon.stop() == 0
        with pytest.raises(AssertionError, match="subordinate ids"):
            daemon.start()
        alone = Rootless()
        stack.callback(alone.close)
        alone.start()
        alone.push_ok(repo(files=static_files("alone")), "alice", "site")
        assert alone.stop() == 0
        with subordinate_ids():
            alone.start()
            assert alone.get_ok("alice", "site").text == "alone"
            assert "made without subordinate ids" in alone.log_path.read_text()


# --- limits

BOMB = """
def bomb():
    forked = []
    try:
        while len(forked) < 300:
            pid = os.fork()
            if pid == 0:
                signal.pause()
            forked.append(pid)
    except OSError:
        pass
    for pid in forked:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return str(len(forked)).encode()
"""


def bomb_app():
    files = app_files(body="bomb() if self.path == '/bomb' else b'up'")
    files["app.py"] = "import os, signal\n" + BOMB + files["app.py"]
    return files


def test_processes_are_bounded(repo):
    """Without a cgroup by RLIMIT_NPROC, counted for the sandbox alone."""
    daemon = Rootless(pids=40)
    try:
        daemon.start()
        for name in ("one", "two"):
            daemon.push_ok(repo(files=bomb_app()), "alice", name)
            assert 10 < int(daemon.get_ok("alice", name, "/bomb").text) < 40
        assert daemon.healthy() and daemon.get_ok("alice", "one").text == "up"
    finally:
        daemon.close()


@pytest.fixture
def delegated():
    """A group of cgroup v2 that belongs to the user, as a systemd service with Delegate=yes and DelegateSubgroup= has it:
    what is started there begins in the subgroup, for a group that gives controllers to others has no processes itself."""
    tops = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines() if line.split()[2] == "cgroup2"]
    if not tops:
        pytest.skip("no cgroup v2 is mounted here")
    group = Path(tops[0]) / USER
    group.mkdir()
    leaf = group / "spaced-daemon"
    leaf.mkdir()
    try:
        for folder in (group, leaf):
            for path in (folder, folder / "cgroup.procs", folder / "cgroup.subtree_control", folder / "cgroup.threads"):
                os.chown(path, UID, GID)
        yield group
    finally:
        wait_for("the group to be empty", lambda: "populated 0" in (group / "cgroup.events").read_text())
        for path, _, _ in os.walk(group, topdown=False):
            os.rmdir(path)


@pytest.mark.parametrize("kind", ["range", "one"])
def test_delegated_cgroup(kind, delegated, repo):
    with contextlib.ExitStack() as stack:
        if kind == "range":
            stack.enter_context(subordinate_ids())
        daemon = Rootless(group=delegated, memory="128M", freeze_after="1s")
        stack.callback(daemon.close)
        daemon.start()
        daemon.push_ok(repo(files=whoami_app()), "alice", "app")
        first = daemon.get_ok("alice", "app").json()
        group, = delegated.glob("spaced-*/app-*")
        members = {int(pid) for pid in (group / "cgroup.procs").read_text().split()}
        apps = {pid for pid in ours() if inside(pid)}
        assert apps and members == apps
        limit = group / "memory.max"
        if "memory" in (delegated / "cgroup.controllers").read_text().split():
            assert limit.read_text().strip() == str(128 << 20)
        else:
            assert "without controllers" in daemon.log_path.read_text()
        # without a visit it is frozen, at the next request it answers; and a second start finds the same groups
        wait_for("the app to be frozen", lambda: "frozen 1" in (group / "cgroup.events").read_text())
        assert daemon.get_ok("alice", "app").json() == first
        assert daemon.stop() == 0
        daemon.start()
        assert daemon.get_ok("alice", "app").json() == first
        assert list(delegated.glob("**/app-*")) == [group], "no groups within groups"
        assert daemon.stop(signal.SIGINT) == 0
        assert not list(delegated.glob("**/app-*"))


def test_exec(rootless, repo):
    rootless.push_ok(repo(files=whoami_app()), "alice", "app")
    rootless.get_ok("alice", "app")
    code, out, err = rootless.spacectl("exec", "alice/app", "--", "sh", "-c", "id -u; cat /proc/self/uid_map; exit 7")
    assert code == 7 and out.split()[0] == "1000", (code, out, err)


def test_root_goes_on_with_its_own(tmp_path):
    """In a folder that somebody else has made, as accounts that have no name: it gets as far as to the port."""
    state = tmp_path / "state"
    (state / "control").mkdir(parents=True)
    (state / "lock").touch()
    os.chown(state, UID, GID)
    os.chown(state / "control", 1999999999, 1999999999)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(["scripts/run", "--port", str(port), "--state", str(state)], cwd=ROOT, text=True, capture_output=True,
                              timeout=60, check=False)
    assert done.returncode == 1 and f"port {port} is taken" in done.stderr, done


def test_make_run(tmp_path):
    """scripts/run as an ordinary user, everything being installed: no root, and it says what that means. Root is told that it cannot
    go on with that."""
    port = free_port()
    home = Path(tempfile.mkdtemp(prefix="spaced-test-", dir="/var/tmp"))
    os.chown(home, UID, GID)
    state = home / "state"
    build, command = os.path.relpath(BUILD, ROOT), ["scripts/run", "--port", str(port), "--state", str(state)]
    process = subprocess.Popen([*become(), f"SPACED_BUILD={build}", f"TMPDIR={home}", *command], cwd=ROOT, stdin=subprocess.DEVNULL, text=True,
                               stdout=open(home / "out", "w", encoding="utf-8"), stderr=subprocess.STDOUT, start_new_session=True)
    try:
        def ready():
            assert process.poll() is None, (home / "out").read_text()
            return "Ctrl-C stops it" in (home / "out").read_text()
        wait_for("scripts/run to be ready", ready, 60)
        text = (home / "out").read_text()
        assert "Not root: some protections are missing" in text
        token = re.search(r"hf_\w{34}", text).group()
        assert (state / "alice.token").read_text().strip() == token
        assert (state / "alice.token").stat().st_uid == UID
    finally:
        os.killpg(process.pid, signal.SIGINT)
        ended, text = process.wait(60), (home / "out").read_text()
        as_root = subprocess.run(command, cwd=ROOT, env={**os.environ, "SPACED_BUILD": build}, timeout=60, text=True, capture_output=True)
        shutil.rmtree(home)
    assert ended == 0, text
    assert as_root.returncode == 1 and f"was begun by {USER} without root" in as_root.stderr, as_root
    wait_for("no process to be left", lambda: not ours())


def test_storage(rootless, repo):
    """/data belongs to the app's own id and survives a restart."""
    body = "(open('/data/visits', 'a').write('x'), open('/data/visits').read().encode())[1]"
    rootless.push_ok(repo(files=app_files(body=f"{body} if self.path == '/visit' else b'up'")), "alice", "keeper")
    rootless.spacectl("space", "storage", "alice/keeper", "32M", check=True)
    assert wait_for("storage", lambda: rootless.get("alice", "keeper", "/visit").status == 200)
    assert rootless.get_ok("alice", "keeper", "/visit").text == "xx"
    rootless.spacectl("space", "restart", "alice/keeper", check=True)
    wait_for("the restart", lambda: rootless.get_ok("alice", "keeper", "/visit").text.startswith("xxx"))
