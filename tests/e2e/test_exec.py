"""spacectl exec: a command inside a running app, with the app's walls, and nothing of the operator's in its reach."""
import array
import contextlib
import fcntl
import hashlib
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import time

import pytest

from apps import app_files, server, static_files
from harness import BUILD, wait_for

STATUS = server(body="open('/proc/self/status').read().encode()")
WALLS = ("Uid", "Gid", "Groups", "Umask", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
         "Seccomp_filters", "Cpus_allowed", "SigBlk")


@pytest.fixture(scope="module")
def app(spaced, tmp_path_factory):
    from harness import Repo

    work = Repo(tmp_path_factory.mktemp("exec") / "app", files={"Procfile": "web: exec python3 app.py\n", "app.py": STATUS})
    spaced.push_ok(work, "alice", "exec-app")
    spaced.get_ok("alice", "exec-app")
    return "alice/exec-app"


def argv_of(daemon, space, *command, options=()):
    return [str(BUILD / "spacectl"), "--state", str(daemon.state), "exec", space, *options, "--", *command]


def run(daemon, space, *command, options=(), **kw):
    kw = {"timeout": 60, "capture_output": True, **kw}
    if "input" not in kw:
        kw.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(argv_of(daemon, space, *command, options=options), **kw)


def inside(daemon, space, mark):
    """How many processes of the app carry `mark` on their command line."""
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and mark in cmdline(pid) and "spacectl" not in cmdline(pid)]


def cmdline(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read().decode(errors="replace")
    except OSError:
        return ""


def walls(status):
    return {k: v for k, v in (line.split(":\t", 1) for line in status.splitlines() if ":\t" in line) if k in WALLS}


# --- output, input, status

def test_output_and_status(spaced, app):
    done = run(spaced, app, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert run(spaced, app, "printf", "%s|", "a b", "", "$HOME").stdout == b"a b||$HOME|"
    assert run(spaced, app, "pwd").stdout == b"/app\n"
    assert run(spaced, app, "pwd", options=["--cwd", "/tmp"]).stdout == b"/tmp\n"
    assert run(spaced, app, "sh", "-c", "kill -9 $$").returncode == 128 + 9
    assert run(spaced, app, "false").returncode == 1
    done = run(spaced, app, "no-such-program")
    assert done.returncode == 127 and b"no-such-program" in done.stderr
    assert run(spaced, app, "/tmp").returncode == 126


def test_environment_is_the_apps(spaced, app):
    env = dict(line.split("=", 1) for line in run(spaced, app, "env").stdout.decode().splitlines())
    assert env["SPACE_ID"] == app and env["PORT"] and env["HOME"] == "/home/user" and env["PATH"].startswith("/opt/venv/bin")
    assert "SUDO_USER" not in env and "SPACED_STATE" not in env


def test_input(spaced, app):
    assert run(spaced, app, "cat", input=b"hello").stdout == b"hello"
    assert run(spaced, app, "true", input=b"x" * (1 << 20)).returncode == 0, "a command that does not read"


def test_much_both_ways(spaced, app):
    data = os.urandom(1 << 20) * 40
    done = run(spaced, app, "cat", input=data, timeout=120)
    assert done.returncode == 0 and hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_the_last_bytes_come(spaced, app):
    for _ in range(30):
        done = run(spaced, app, "sh", "-c", "head -c 300000 /dev/zero; echo end >&2")
        assert len(done.stdout) == 300000 and done.stderr == b"end\n"


def test_a_reader_that_leaves(spaced, app):
    """spacectl exec ... | head: the command gets its SIGPIPE."""
    with subprocess.Popen(argv_of(spaced, app, "yes"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as p:
        p.stdout.read(10)
        p.stdout.close()
        assert p.wait(60) == 128 + signal.SIGPIPE


def test_what_stays_behind_does_not_hold_us(spaced, app):
    assert run(spaced, app, "sh", "-c", "sleep 31415 & echo up").stdout == b"up\n"  # within the patience of run()
    assert inside(spaced, app, "31415")
    run(spaced, app, "pkill", "-f", "sleep 31415")


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_what_goes_on_writing_does_not_hold_us(spaced, app, terminal):
    """All inside are one user: who has got hold of the other end may fill it for ever, behind the end of the command."""
    flood = "setsid -f sh -c 'trap \"\" HUP; exec yes flood-of-mine'; " \
            "until pgrep -x yes > /dev/null; do :; done; exit 5"
    ours, theirs = pty.openpty() if terminal else os.pipe()
    try:
        process = subprocess.Popen(argv_of(spaced, app, "sh", "-c", flood, options=("-t",) if terminal else ()),
                                   stdin=theirs if terminal else subprocess.DEVNULL, stdout=theirs, stderr=theirs)
        os.close(theirs)
        deadline = time.monotonic() + 100
        while process.poll() is None and time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    os.read(ours, 512)  # slower than who writes
        process.kill()
        assert process.wait() == 5
    finally:
        os.close(ours)
        run(spaced, app, "pkill", "yes")


def test_memory_is_bounded(spaced, app):
    """100 MB of output for a reader that is slow (battery E6)."""
    with subprocess.Popen(argv_of(spaced, app, "head", "-c", "100M", "/dev/zero"), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE) as p:
        got = most = 0
        while chunk := p.stdout.read(1 << 20):
            got += len(chunk)
            with open(f"/proc/{p.pid}/status") as f:
                if peak := re.search(r"VmHWM:\s+(\d+)", f.read()):  # none once it has ended
                    most = max(most, int(peak.group(1)))
        assert got == 100 << 20 and p.wait(60) == 0
    assert 0 < most < (60 if "asan" not in str(BUILD) else 300) << 10, f"{most} KiB"


# --- walls

def test_same_walls_as_the_app(spaced, app):
    main = walls(spaced.get("alice", "exec-app").text)
    beside = walls(run(spaced, app, "cat", "/proc/self/status").stdout.decode())
    assert set(main) >= {"Uid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Groups"}
    assert main == beside
    assert main["NoNewPrivs"] == "1" and main["Seccomp"] == "2" and int(main["CapBnd"], 16) == 0
    terminal = walls(in_terminal(spaced, app, "cat", "/proc/self/status").decode().replace("\r", ""))
    assert terminal == main


def test_no_descriptor_of_ours_gets_in(spaced, app, tmp_path):
    """A folder, a file and a device as our stdio: the command sees pipes of its own, and nothing else."""
    FDS = """
import os, sys
seen = []
for fd in range(1000):
    try: seen.append(os.readlink(f'/proc/self/fd/{fd}'))
    except OSError: pass
open('/tmp/fds', 'w').write('\\n'.join(seen))
sys.stdout.write(sys.stdin.read())
"""
    (tmp_path / "in").write_bytes(b"content")
    with open(tmp_path / "in", "rb") as given, open(tmp_path / "out", "wb") as out, open("/dev/null", "r+b") as null:
        done = subprocess.run(argv_of(spaced, app, "python3", "-c", FDS), stdin=given,
                              stdout=out, stderr=null, timeout=60)
    assert done.returncode == 0 and (tmp_path / "out").read_bytes() == b"content"
    seen = run(spaced, app, "cat", "/tmp/fds").stdout.decode().split()
    assert len(seen) == 3 and all(s.startswith("pipe:") for s in seen), seen
    folder = os.open(tmp_path, os.O_RDONLY)
    assert run(spaced, app, "cat", stdin=folder).returncode == 0
    os.close(folder)


def test_not_over_the_network(spaced, app):
    """Neither an admin's token nor descriptors get anything on the public side."""
    assert spaced.spacectl("user", "add", "exec-admin", "--admin")[0] == 0
    token = spaced.spacectl("token", "add", "exec-admin", check=True)[1].strip()
    body = json.dumps({"argv": ["touch", "/tmp/from-the-network"]})
    head = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    for extra in ({}, {"Connection": "Upgrade", "Upgrade": "spaced-exec"}):
        answer = spaced.request("POST", f"/api/spaces/{app}/exec", headers={**head, **extra}, body=body)
        assert answer.status in (403, 400), (answer.status, answer.text)
    assert run(spaced, app, "ls", "/tmp/from-the-network").returncode == 2, "it was not even begun"


def raw_request(path, app, fds=(), headers=b"Connection: Upgrade\r\nUpgrade: spaced-exec\r\n", body=b'{"argv":["id"]}'):
    """A request on a unix socket, with descriptors beside its first byte; answer and what descriptors came with it."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(60)
        s.connect(str(path))
        text = (f"POST /api/spaces/{app}/exec HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n".encode() + headers
                + b"\r\n" + body)
        sent = s.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
        assert sent == len(text)
        data, ancillary, _, _ = s.recvmsg(65536, socket.CMSG_SPACE(4 * 16))
        got = []
        for _, _, raw in ancillary:
            got += list(array.array("i", raw))
        for fd in got:
            os.close(fd)
        return data.decode(), len(got)


def test_descriptors_are_not_taken(spaced, app):
    """Whoever sends descriptors along has them closed by the other side at once (battery E9)."""
    for path, status, fds in ((spaced.state / "run/http.sock", "401", 0), (spaced.state / "control.sock", "101", 4)):
        r, w = os.pipe()
        answer, got = raw_request(path, app, [w, w, w])
        os.close(w)
        assert answer.split()[1] == status and got == fds, answer
        assert select.select([r], [], [], 60)[0] and os.read(r, 1) == b"", "somebody holds the descriptor"
        os.close(r)


def test_requests_that_make_no_sense(spaced, app):
    sock = spaced.state / "control.sock"
    assert raw_request(sock, app, headers=b"")[0].split()[1] == "426"
    for body in (b"{}", b"", b'{"argv":[]}', b'{"argv":[""]}', b'{"argv":[1]}', b'{"argv":"id"}', b'{"argv":["a\\u0000b"]}',
                 b'{"argv":["id"],"cwd":"tmp"}', b'{"argv":["id"],"term":"a b"}', b'{"argv":["' + b"x" * 70000 + b'"]}',
                 json.dumps({"argv": ["x"] * 2000}).encode(), b"[]"):
        answer, fds = raw_request(sock, app, body=body)
        assert answer.split()[1] == "400" and not fds, (body[:50], answer)
    # a size that is no size is left out
    assert raw_request(sock, app, body=b'{"argv":["true"],"tty":true,"rows":-5,"cols":99999999}')[0].split()[1] == "101"


def test_our_program_is_what_it_was(spaced, app):
    """CVE-2019-5736 (battery A11): the app tries to write into the program from which its commands come."""
    def digest():
        return hashlib.sha256((BUILD / "spaced").read_bytes()).hexdigest()

    before = digest()
    attacker = subprocess.Popen(argv_of(spaced, app, "python3", "-c", r"""
import os, select, sys
seen = set()
laps = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    for p in os.listdir('/proc'):
        if p.isdigit() and int(p) != os.getpid():
            for flags in (os.O_WRONLY | os.O_TRUNC, os.O_RDWR):
                try: seen.add(os.readlink(f'/proc/self/fd/{os.open(f"/proc/{p}/exe", flags)}'))
                except OSError as e: seen.add(e.errno)
    laps += 1
    if laps == 1: print('ready', flush=True)
print(sorted(map(str, seen)))
"""), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert attacker.stdout.readline() == "ready\n"
    run(spaced, app, "sh", "-c", r"printf '#!/proc/self/exe\n' >/tmp/e; chmod +x /tmp/e; ln -sf /proc/self/exe /tmp/l")
    for command in ("true", "/tmp/e", "/tmp/l") * 8:
        run(spaced, app, command)
    seen = attacker.communicate("enough", timeout=60)[0]
    assert seen and not re.search("spaced|memfd|deleted", seen), seen
    assert digest() == before


# --- how it ends

def test_signals_go_to_the_command(spaced, app):
    script = "trap 'echo got-int; exit 5' INT; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(argv_of(spaced, app, "sh", "-c", script), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as p:
        assert p.stdout.readline() == b"ready\n"
        p.send_signal(signal.SIGINT)
        assert p.stdout.read() == b"got-int\n" and p.wait(60) == 5


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGHUP])
def test_nothing_is_left_of_a_spacectl_that_is_killed(spaced, app, sig):
    for options, mark in (((), "27182"), (("-t",), "27183")):
        master, slave = pty.openpty()
        with subprocess.Popen(argv_of(spaced, app, "sh", "-c", f"echo up; sleep {mark} | sleep {mark}", options=options),
                              stdin=slave, stdout=subprocess.PIPE) as p:
            assert p.stdout.readline().strip() == b"up"
            wait_for("the command", lambda m=mark: len(inside(spaced, app, m)) >= 3)
            p.send_signal(sig)
            p.wait(60)
            wait_for("nothing to be left", lambda m=mark: not inside(spaced, app, m))
        os.close(master)
        os.close(slave)


def test_many_at_a_time(spaced, app):
    running = [subprocess.Popen(argv_of(spaced, app, "sh", "-c", "echo up; cat"), stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(16)]
    try:
        assert all(p.stdout.readline() == b"up\n" for p in running)
        done = run(spaced, app, "true")
        assert done.returncode == 125 and b"16 commands" in done.stderr
    finally:
        for p in running:
            p.communicate(b"")
    assert all(p.returncode == 0 for p in running)
    assert run(spaced, app, "true").returncode == 0


def test_without_an_app(spaced, app, repo):
    done = run(spaced, "alice/nobody", "true")
    assert done.returncode == 125 and b"not found" in done.stderr
    spaced.push_ok(repo(files=static_files()), "alice", "exec-static")
    spaced.wait_stage("alice", "exec-static", "RUNNING")
    done = run(spaced, "alice/exec-static", "true")
    assert done.returncode == 125 and b"static" in done.stderr
    assert run(spaced, "no-slash", "true").returncode == 2
    spaced.push_ok(repo(files=app_files()), "alice", "exec-paused")
    spaced.get_ok("alice", "exec-paused")
    with subprocess.Popen(argv_of(spaced, "alice/exec-paused", "sh", "-c", "echo up; sleep 1000"), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
        assert p.stdout.readline() == b"up\n"
        assert spaced.spacectl("space", "pause", "alice/exec-paused")[0] == 0
        assert p.wait(60) == 137 and b"the app has ended" in p.stderr.read()
    done = run(spaced, "alice/exec-paused", "true")
    assert done.returncode == 125 and b"does not run" in done.stderr and b"PAUSED" in done.stderr


def test_usage(spaced, app):
    done = subprocess.run([str(BUILD / "spacectl"), "--state", str(spaced.state), "exec", app], stdin=subprocess.DEVNULL,
                          capture_output=True, timeout=60)
    assert done.returncode == 2 and b"which command" in done.stderr
    done = subprocess.run([str(BUILD / "spacectl"), "--state", str(spaced.state / "nothing"), "exec", app, "--", "true"],
                          capture_output=True, timeout=60)
    assert done.returncode == 125 and b"no spaced runs" in done.stderr


def test_it_is_noted_without_arguments(spaced, app):
    run(spaced, app, "echo", "top-secret-argument")
    events = spaced.spacectl("space", "events", app)[1]
    assert re.search(rf"exec +by uid {os.geteuid()}: echo$", events, re.M), events
    run(spaced, app, "a" * 199 + "\u00e9")  # cut in front of a character, not in it
    assert re.search(r"exec +by uid \d+: a{199}$", spaced.spacectl("space", "events", app)[1], re.M)
    assert "top-secret-argument" not in events and "top-secret-argument" not in spaced.log_path.read_text()


@pytest.mark.parametrize("role", ["spawner", "control"])
def test_a_role_dies(start_spaced, repo, role):
    daemon = start_spaced()
    daemon.push_ok(repo(files=app_files()), "alice", "exec-role")
    daemon.get_ok("alice", "exec-role")
    with subprocess.Popen(argv_of(daemon, "alice/exec-role", "sh", "-c", "trap '' HUP; echo up; sleep 16180"),
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
        assert p.stdout.readline() == b"up\n"
        daemon.kill_role(role)
        assert p.wait(60) in (125, 137)
        assert b"has ended" in p.stderr.read()
    wait_for("the command to be gone", lambda: not inside(daemon, "", "16180"))

    def again():
        return run(daemon, "alice/exec-role", "echo", "again").stdout == b"again\n"

    wait_for("another command to work", again, 60)
    assert daemon.get("alice", "exec-role").status == 200


# --- terminals

def in_terminal(daemon, space, *command, keys=(), size=(24, 80), options=("-t",), code=0):
    """Runs spacectl on a terminal of ours; `keys` are (what to wait for, what to type or do then)."""
    pid, master = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        argv = argv_of(daemon, space, *command, options=options)
        os.execve(argv[0], argv if command else argv[:-1], {**os.environ, "TERM": "xterm-test"})
    out, keys, deadline = bytearray(), list(keys), time.monotonic() + 120
    from_here = 0
    while True:
        while keys and keys[0][0] in out[from_here:]:
            from_here = len(out)
            act = keys.pop(0)[1]
            if callable(act):
                act(pid, master)
            else:
                os.write(master, act)
        ready = select.select([master], [], [], max(0, deadline - time.monotonic()))[0]
        assert ready, f"no end; so far {out!r}, waiting for {keys!r}"
        try:
            chunk = os.read(master, 65536)
        except OSError:
            chunk = b""
        if not chunk:
            break
        out += chunk
    os.close(master)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == code, (status, out[-2000:])
    return bytes(out)


def test_terminal(spaced, app):
    out = in_terminal(spaced, app, "sh", "-c", "stty size; tty; echo $TERM; test -t 0 -a -t 1 -a -t 2 && echo all; exit 3",
                      size=(33, 101), code=3)
    assert out == b"33 101\r\n/dev/pts/0\r\nxterm-test\r\nall\r\n"


def test_without_t_it_is_no_terminal(spaced, app):
    assert in_terminal(spaced, app, "sh", "-c", "test -t 0 -o -t 1 -o -t 2 || echo none", options=()) == b"none\r\n"
    # what is printed does not control the terminal that it gets to
    out = in_terminal(spaced, app, "printf", r"a\033]0;title\007b\033[31mred\033[2J\033[6nc", options=())
    assert out == b"a]0;titleb\x1b[31mredc"
    # ESC [ as one character, beside characters that begin like it
    out = in_terminal(spaced, app, "printf", r"a\302\233\302\240\303\251\302\2336nd", options=())
    assert out == b"a\xc2\xa0\xc3\xa96nd"


def test_resize(spaced, app):
    def resize(pid, master):
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 132, 0, 0))

    out = in_terminal(spaced, app, "sh", "-c", "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done",
                      keys=[(b"ready", resize)])
    assert out.endswith(b"50 132\r\n")


def test_keys_pass_through(spaced, app):
    script = "trap 'echo interrupted; exit 4' INT; echo ready; while :; do sleep 0.05; done"
    out = in_terminal(spaced, app, "sh", "-c", script, keys=[(b"ready", b"\x03")], code=4)
    assert b"^C" in out and out.endswith(b"interrupted\r\n")
    out = in_terminal(spaced, app, "sh", "-c", "echo ready; cat >/dev/null; echo end", keys=[(b"ready", b"text\r\x04")])
    assert out.endswith(b"end\r\n")


def test_shell(spaced, app):
    out = in_terminal(spaced, app, options=(), keys=[(b"$", b"echo $((6*7)) $0\r"), (b"42 ", b"exit 9\r")], code=9)
    assert b"42 " in out


def test_terminal_is_restored(spaced, app):
    """By the end of the command, and by signals that end spacectl."""
    for sig in (None, signal.SIGTERM, signal.SIGHUP):
        master, slave = pty.openpty()
        before = termios.tcgetattr(slave)
        with subprocess.Popen(argv_of(spaced, app, "sh", "-c", "echo up; read x; exit 6", options=["-t"]), stdin=slave,
                              stdout=slave, stderr=slave, start_new_session=True) as p:
            out = b""
            while b"up" not in out:
                out += os.read(master, 1000)
            wait_for("raw mode", lambda s=slave: not termios.tcgetattr(s)[3] & termios.ICANON)
            if sig:
                p.send_signal(sig)
            else:
                os.write(master, b"\r")
            assert p.wait(60) == (128 + sig if sig else 6)
        assert termios.tcgetattr(slave) == before
        os.close(master)
        os.close(slave)


def test_our_terminal_is_out_of_reach(spaced, app):
    """CVE-2017-5226 (battery E5): what the command has is another terminal, into which it cannot type either."""
    out = in_terminal(spaced, app, "python3", "-c", r"""
import fcntl, os, termios
for fd in 0, 1, 2, os.open('/dev/tty', os.O_RDWR):
    for name, code in ('TIOCSTI', termios.TIOCSTI), ('TIOCLINUX', 0x541c), ('TIOCSETD', termios.TIOCSETD), ('TIOCSCTTY', termios.TIOCSCTTY):
        try: fcntl.ioctl(fd, code, b'x\0\0\0'); print(name, 'worked')
        except OSError as e: print(name, e.errno)
""")
    assert out.count(b"\r\n") == 16 and all(line.endswith(b" 1") for line in out.splitlines()), out


def test_much_on_a_terminal(spaced, app):
    out = in_terminal(spaced, app, "sh", "-c", "yes 0123456789abcdef | head -c 20000000; echo end")
    assert out.replace(b"\r", b"") == (b"0123456789abcdef\n" * (20000000 // 17 + 1))[:20000000] + b"end\n"
