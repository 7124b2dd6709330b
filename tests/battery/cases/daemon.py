"""Group H: the daemon and its tools as the target."""
import contextlib
import glob
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

from rig.battery import ROOT
from rig.case import Broken, Inapplicable
from rig.tenants import POISON, check, watched

from .net import victim_of

# --- H1

BAD_NAMES = ["", ".", "..", "../x", "a/b", "-rf", "a" * 300, "a\0b", "\u0430lice", "a.", "a ", " a", "a--b", "\U0001f680",
             "%2e%2e", "a\nb", "a\\b", "x.git", "$(id)", "`id`", "a;b", "a\x7f", "ａｌｉｃｅ"]
GOOD_HOSTS = ("{host}", "{HOST}", "{host}:80", "{host}.", "{HOST}.:65535")
BAD_HOSTS = ("xn--{host}", "{host}..", "..{host}", "{host}%00", "{host} x", "{host}/x", "{host}\\x", "{cyrillic}", "{host}@x",
             "{host}:x", "{host}:99999", "[{host}]", "x.{host}")


@watched(60)
def names(tenants, case):
    daemon = tenants.daemon
    bearer = {"Authorization": f"Bearer {daemon.token()}"}
    before = {s["id"] for s in daemon.request("GET", "/api/spaces").json()}
    for name in BAD_NAMES:
        answer = daemon.request("POST", "/api/repos/create", headers=bearer, body=json.dumps({"name": name, "type": "space"}))
        check(answer.status in (400, 403), f"API takes the name {name!r}: {answer.status}")
        if "\0" not in name and name:
            check(daemon.spacectl("user", "add", "--", name)[0] != 0 and daemon.spacectl("user", "add", name)[0] != 0,
                  f"spacectl takes the user {name!r}")
        path = f"/spaces/alice/{http_quote(name)}/info/refs?service=git-receive-pack"
        status = raw(daemon, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer['Authorization']}\r\n")
        # git's own habit: NAME.git is NAME, and of that an owner may ask
        check(status >= 400 or name == "x.git", f"git takes the name {name!r}: {status}")
    check({s["id"] for s in daemon.request("GET", "/api/spaces").json()} == before, "a Space was made")
    host = daemon.host("bob", "victim")
    forms = {"host": host, "HOST": host.upper(), "cyrillic": host.replace("o", "\u043e")}
    for form in GOOD_HOSTS:
        check(raw(daemon, f"GET / HTTP/1.1\r\nHost: {form.format(**forms)}\r\n") == 200, f"{form} is not the Space")
    for form in BAD_HOSTS:
        check(raw(daemon, f"GET / HTTP/1.1\r\nHost: {form.format(**forms)}\r\n") >= 400, f"{form} is the Space")
    return f"{len(BAD_NAMES)} names refused by API, git and spacectl; {len(GOOD_HOSTS)} forms of a host are one, {len(BAD_HOSTS)} none"


def http_quote(name):
    return "".join(c if c.isalnum() and c.isascii() or c in "./%-" else "".join(f"%{b:02x}" for b in c.encode()) for c in name)


def raw(daemon, head):
    """The status of an answer; 599 when the connection ends without one."""
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=20) as s:
        s.sendall(head.encode() + b"Connection: close\r\n\r\n")
        words = []
        with contextlib.suppress(ConnectionResetError):
            words = s.recv(65536).split(b" ", 2)
        return int(words[1]) if len(words) > 1 else 599


# --- H2, H3


def environ(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


@watched(60)
def environment(tenants, case):
    """The daemon was started with poison in its environment; a client sends some more."""
    from harness import Repo
    from rig.host import descendants
    daemon = tenants.daemon
    marks = [value.encode() for value in POISON.values()]
    if not all(m in environ(daemon.process.pid) for m in marks):
        raise Broken("the daemon was started without the poison")
    below = descendants(daemon.process.pid)
    for pid, name in below.items():
        text = environ(pid)
        check(not any(m in text for m in marks), f"{name} {pid} has inherited {text[:200]!r}")
    evil = ["-c", "http.extraHeader=Git-Protocol: version=2:LD_PRELOAD=poison", "-c", "http.extraHeader=LD_PRELOAD: poison"]
    repo = Repo(pathlib.Path(tenants.battery.work, "environment", "repo"), files={
        "README.md": "---\nsdk: static\napp_build_command: env >env.txt\n---\n", "index.html": "x"})
    repo.env.update({k: v for k, v in POISON.items() if not k.startswith("GIT")}, LD_LIBRARY_PATH="/tmp/poison")
    done = subprocess.run(["git", *evil, "push", daemon.remote("alice", "environment"), "main"], cwd=repo.path, env=repo.env,
                          text=True, capture_output=True, timeout=300)
    if done.returncode:
        raise Broken(f"the push did not work: {done.stderr[-300:]}")
    inside = daemon.get_ok("alice", "environment", "/env.txt").text
    check("poison" not in inside and "canary" not in inside, f"a build has inherited {inside!r}")
    daemon.spacectl("space", "delete", "alice/environment", check=True)
    return f"{len(below)} processes and a build: none has it"


SEARCH = """
import os, sys
wanted, found, seen = [w.encode() for w in sys.argv[1:]], [], 0
def look(path):
    global seen
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return
    try:
        data = os.read(fd, 1 << 20)
    except OSError:
        data = b""
    os.close(fd)
    seen += 1
    if any(w in data for w in wanted):
        found.append(path)
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "maps", "mountinfo", "status", "cgroup", "net/unix", "root/app/secret", "cwd/secret"):
        look(f"/proc/{pid}/{name}")
for top in os.listdir("/"):
    if top in ("proc", "usr", "lib", "lib64", "bin", "sbin"):
        continue
    for folder, _, files in os.walk("/" + top):
        for name in files:
            look(os.path.join(folder, name))
found = [f for f in found if f"{os.getpid()}" not in f]
print(seen, *found)
"""


@watched(60)
def secrets(tenants, case):
    address, pid = victim_of(tenants)  # the control: the host's root finds it in the victim
    state = str(tenants.daemon.state)
    own = tenants.python("import os; print(open('/proc/self/mountinfo').read() + repr(dict(os.environ)))")
    check(state not in own and tenants.secret not in own, "the app sees where the daemon keeps its state")
    seen, *found = tenants.python(SEARCH, tenants.secret, timeout=50).split()
    check(not found, f"the victim's secret is in {found[:5]}")
    if int(seen) < 50:
        raise Broken(f"only {seen} files were looked at")
    log = tenants.daemon.log_path.read_text(errors="replace")
    check(tenants.secret not in log, "the victim's secret is in the daemon's log")
    token = tenants.daemon.token("bob")
    check(token not in log and not any(token.encode() in environ(p) for p in map(int, filter(str.isdigit, os.listdir("/proc")))
                                       if p != os.getpid()), "a token is in the log or in an environment")
    return f"{seen} files and entries of /proc looked at"


# --- H4


def deaths(battery, case):
    """A daemon of its own: fifty times one role, or all, dies while a Space is pushed, started, paused."""
    from harness import Repo, Spaced, wait_for
    from test_leftovers import tag_of, traces
    daemon = Spaced(build_timeout="20s", startup_timeout="30s")
    rng = random.Random(4)
    end = threading.Event()
    try:
        daemon.start()
        token = daemon.token()
        repo = Repo(pathlib.Path(battery.work, "deaths", "repo"), files={
            "Procfile": "web: exec python3 -m http.server $PORT\n", "index.html": "0"})
        daemon.push_ok(repo, "alice", "mortal")
        accepted = ["0"]

        def busy():
            n = 0
            while not end.is_set():
                n += 1
                with contextlib.suppress(OSError, http.client.HTTPException, subprocess.SubprocessError):
                    for verb in ("restart", "pause", "restart"):
                        daemon.request("POST", f"/api/spaces/alice/mortal/{verb}",
                                       headers={"Authorization": f"Bearer {token}"}, timeout=10)
                    repo.commit(f"push {n}", {"index.html": str(n)})
                    done = daemon.push(repo, "alice", "mortal", "main", "-o", "nowait", token=token, timeout=20)
                    if "main -> main" in done.stdout:
                        accepted.append(str(n))
        worker = threading.Thread(target=busy)
        worker.start()
        kills = dict.fromkeys(("spawner", "control", "proxy", "static", "all"), 0)
        for _ in range(50):
            time.sleep(rng.random() * 0.3)
            role = rng.choice(("spawner", "spawner", "control", "control", "proxy", "static", "all"))
            kills[role] += 1
            if role == "all":
                for pid in [daemon.process.pid, *sum(daemon.pids().values(), [])]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                daemon.process.wait()
                daemon.start()
            else:
                for pid in daemon.pids(role):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        end.set()
        worker.join()
        wait_for("the daemon to be well", daemon.healthy)
        wait_for("control to take a restart", lambda: daemon.spacectl("space", "restart", "alice/mortal")[0] == 0)
        daemon.wait_stage("alice", "mortal", "RUNNING")
        deadline = time.monotonic() + 120
        while int(text := daemon.get_ok("alice", "mortal").text) < int(accepted[-1]):
            check(time.monotonic() < deadline, f"push {accepted[-1]} was accepted, {text} runs")
            time.sleep(0.1)
        space = daemon.show("alice", "mortal")["_id"]
        wait_for("one instance", lambda: len(daemon.monitors(space)) == 1)
        tag, state = tag_of(daemon), str(daemon.state)
    finally:
        end.set()
        daemon.close()

    def left():
        return [*{kind: names for kind, names in traces(tag, state).items() if names}.items(), *daemon.monitors(space)]
    wait_for("nothing to be left behind", lambda: not left())
    return f"{', '.join(f'{n} {role}' for role, n in kills.items())}; {len(accepted)} pushes accepted, none lost, no orphan"


# --- H5

FILE_WRITES = "write,writev"
# None that the kernel never gives: the C library and libuv abort when a wake by a futex or an eventfd fails.
FAULTS = (  # role, calls, error, one in
    ("spawner", "openat,pipe2,socketpair,socket,dup", "EMFILE", 5),
    ("spawner", "clone,fork,vfork,clone3", "EAGAIN", 3),
    ("spawner", "write,pwrite64,mkdirat,fallocate,ftruncate", "ENOSPC", 3),
    ("spawner", "epoll_wait,recvmsg,sendmsg,read,poll", "EINTR", 3),
    ("spawner", "fsopen,fsmount,open_tree,move_mount,mount_setattr,mount", "ENOMEM", 4),
    ("control", "pwrite64,fsync,fdatasync,ftruncate,mkdir,mkdirat", "ENOSPC", 4),
    ("control", FILE_WRITES, "ENOSPC", 2),
    ("control", "openat,accept4,pipe2,socketpair,dup", "EMFILE", 5),
    ("control", "epoll_wait,recvmsg,sendmsg,read", "EINTR", 3),
)


def files_of(daemon, pid):
    """Options of strace for the files of the state folder that a role has open. A full disk fails no pipe, socket or eventfd."""
    links = {os.readlink(fd) for fd in glob.glob(f"/proc/{pid}/fd/*")}
    return [word for path in links if path.startswith(str(daemon.state)) and os.path.isfile(path) for word in ("-P", path)]


def let_go(tracer, pid, out):
    """A call whose entry strace has changed, and whose answer not yet, fails with ENOSYS when strace goes. No kernel says that of
    recvmsg, and a role that hears it takes its channel for broken and ends. Stopped, it is in no call at all."""
    from harness import wait_for

    def stopped():
        text = out.read_text(errors="replace")
        return all(re.search(rf"^{task} +--- stopped by SIGSTOP ---", text, re.M) for task in os.listdir(f"/proc/{pid}/task"))

    try:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has died
            os.kill(pid, signal.SIGSTOP)
            wait_for("the role to stop", stopped)
    finally:
        tracer.terminate()
        tracer.communicate(timeout=60)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@watched(120)
def faults(tenants, case):
    """Calls of a role fail by strace's injection while the attacker is started again and pushed to; afterwards all works."""
    from harness import wait_for
    if not shutil.which("strace"):
        raise Inapplicable("strace is not installed")
    daemon, seen = tenants.daemon, []
    space = daemon.show("alice", "attacker")["_id"]
    for role, calls, error, step in FAULTS:
        out = pathlib.Path(tenants.battery.work, f"faults-{len(seen)}")
        pid = daemon.pids(role)[0]
        only = files_of(daemon, pid) if calls == FILE_WRITES else []
        tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", str(out), "-p", str(pid), *only, "-e", f"trace={calls}", "-e",
                                   f"inject={calls}:error={error}:when={step}+{step}"], stderr=subprocess.PIPE, text=True)
        try:
            wait_for("strace to hold on", lambda: "TracerPid:\t0" not in
                     pathlib.Path(f"/proc/{pid}/status").read_text())
            for _ in range(3):
                daemon.spacectl("space", "restart", "alice/attacker")
                time.sleep(0.3)
        finally:
            let_go(tracer, pid, out)
        injected = out.read_text(errors="replace").count("(INJECTED)")
        check(pathlib.Path(f"/proc/{pid}").exists(), f"{role} died of {error} in {calls}: {daemon.log_tail(5)}")
        seen.append(f"{role} {error} {injected}")
        tenants.restart()
        wait_for("one instance", lambda: len(daemon.monitors(space)) == 1)
    if not any(int(s.split()[2]) for s in seen):
        raise Broken("no call failed")
    def groups():
        return {pathlib.Path(g).name for g in tenants.group_dirs() if f"app-{space}" in g}
    deadline = time.monotonic() + 60
    while len(groups()) != 1:
        check(time.monotonic() < deadline, f"half-open sandboxes: {groups()}")
        time.sleep(0.1)
    return f"failed calls: {', '.join(seen)}; then one instance of it"


# --- H6


@watched(60)
def control_socket(tenants, case):
    from harness import BUILD
    daemon = tenants.daemon
    path = daemon.state / "control.sock"
    as_nobody = dict(user=65534, group=65534, extra_groups=[])
    # From where it is: not everybody finds the way to the clone of somebody else, below /root say.
    program = dict(executable=f"./{os.path.relpath(BUILD, ROOT)}/spacectl", cwd=ROOT, capture_output=True, text=True, timeout=60)
    command = ["spacectl", "--state", str(daemon.state), "user", "list"]
    if subprocess.run(command, **program).returncode != 0:
        raise Broken("spacectl does not work as root either")
    done = subprocess.run(command, **program, **as_nobody)
    check(done.returncode != 0 and "bob" not in done.stdout, "nobody may list users")
    modes = {p: p.stat().st_mode & 0o7777 for p in (daemon.state, path)}
    try:  # with the doors of the file system open, the caller's uid is still asked
        daemon.state.chmod(0o755)
        path.chmod(0o666)
        done = subprocess.run(command, **program, **as_nobody)
        check(done.returncode != 0 and "bob" not in done.stdout, "nobody may list users when the socket is open to all")
    finally:
        for p, mode in modes.items():
            p.chmod(mode)
    before = tenants.descriptors("control")
    with contextlib.ExitStack() as stack:
        def dial(data):
            s = stack.enter_context(socket.socket(socket.AF_UNIX))
            s.settimeout(60)
            s.connect(str(path))
            with contextlib.suppress(OSError):
                s.sendall(data)
            return s
        big = dial(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * (1 << 20))
        with contextlib.suppress(OSError):
            answer = big.recv(100)
            check(not answer or int(answer.split()[1]) >= 400, f"a head of a MiB is taken: {answer!r}")
        for n in range(200):  # torn off in the middle, with descriptors in the luggage
            s = dial(b"POST /api/admin/users HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"[:n % 60 + 1])
            with contextlib.suppress(OSError):
                socket.send_fds(s, [b"x"], [s.fileno()] * 8)
            s.close()
        idle = 0
        for idle in range(3000):
            try:
                s = stack.enter_context(socket.socket(socket.AF_UNIX))
                s.setblocking(False)
                s.connect(str(path))
            except OSError:
                break
        held = tenants.descriptors("control")
        check(daemon.healthy(), "the daemon does not answer any more")
    deadline = time.monotonic() + 60
    while subprocess.run(command, **program).returncode != 0:
        check(time.monotonic() < deadline, "spacectl does not come through after the flood")
    while tenants.descriptors("control") > before + 20:
        check(time.monotonic() < deadline, f"descriptors of control: {before} before, {tenants.descriptors('control')} now")
        time.sleep(0.1)
    return f"nobody is refused, also by SO_PEERCRED alone; {idle + 1} idle connections: {held} descriptors held"


# --- H7

MALFORMED = {
    "no end of a list": "title: [a, b\nsdk: static\n",
    "tab": "title: x\n\tsdk: static\n",
    "alias bomb": "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nsdk: static\n",
    "not a mapping": "- a\n- b\n",
    "bytes": "title: \"\\xff\x01\"\nsdk: static\n",
    "deep": "a: " + "[" * 2000 + "]" * 2000 + "\n",
    "number": "sdk: static\napp_port: 99999999999999999999\n",
}
FUZZ_S = 6


def fuzz_target(battery):
    """tests/fuzz/fuzz_header.c: the parser with coverage, what it calls as it is built; the whole set is `make fuzz`."""
    compiler = next((c for c in ("clang-14", "clang") if shutil.which(c)), None)
    if not compiler:
        return None
    llhttp = ["libllhttp"] if subprocess.run(["pkg-config", "--exists", "libllhttp"]).returncode == 0 else []  # else in proxy.a
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "yaml-0.1", "jansson", "libsodium", "libidn2", *llhttp],
                           capture_output=True, text=True, check=True).stdout.split()
    target = f"{battery.work}/fuzz-header"
    done = subprocess.run([compiler, "-D_GNU_SOURCE", "-I.", "-include", "base/banned.h", "-std=gnu17", "-O1", "-g", "-w",
                           "-fsanitize=address,undefined,fuzzer", "-o", target, "tests/fuzz/fuzz_header.c",
                           "spaced/space/header.c", "spaced/space/header_yaml.c",
                           "build/spaced.a", "build/proxy.a", "build/sandbox.a", "build/base.a", *flags],
                          cwd=ROOT, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise Broken(f"the fuzz target does not build: {done.stderr[-300:]}")
    return target


@watched(90)
def manifests(tenants, case):
    from harness import Repo
    daemon, lines = tenants.daemon, 0
    for n, (name, text) in enumerate(MALFORMED.items()):
        repo = Repo(pathlib.Path(tenants.battery.work, f"manifest-{n}", "repo"), files={
            "README.md": f"---\n{text}---\n# x\n", "index.html": "x"})
        out = daemon.push(repo, "alice", f"manifest-{n}", timeout=300).stdout
        stage = daemon.stage("alice", f"manifest-{n}")
        check(stage in ("CONFIG_ERROR", "NO_APP_FILE", "RUNNING", "BUILD_ERROR"), f"{name}: {stage}")
        if stage == "CONFIG_ERROR":
            check("line" in out, f"{name}: no line is named: {out[-300:]}")
            lines += 1
        daemon.spacectl("space", "delete", f"alice/manifest-{n}", check=True)
    check(lines >= 3, f"only {lines} malformed headers were refused")
    target = fuzz_target(tenants.battery)
    if not target:
        return f"{len(MALFORMED)} malformed headers, {lines} refused with their line (no clang: not fuzzed)"
    corpus = pathlib.Path(tenants.battery.work, "fuzz-corpus")
    corpus.mkdir()
    done = subprocess.run([target, f"-max_total_time={FUZZ_S}", "-timeout=60", "-rss_limit_mb=1024", "-print_final_stats=1",
                           f"-artifact_prefix={corpus}/", str(corpus), str(ROOT / "tests/fuzz/corpus/header")],
                          capture_output=True, text=True, timeout=300)
    check(done.returncode == 0, f"fuzzing has found: {done.stderr[-600:]}")
    runs = [line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    return f"{len(MALFORMED)} malformed headers, {lines} refused with their line; fuzzed {runs[0] if runs else '?'} times"
