"""`sandbox run` as a tool: what it hands on, what it refuses and how it says so, whatever its caller is like."""
import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from harness import BUILD, SLOW, wait_for

SANDBOX = str(BUILD / "sandbox")
ROOT = os.geteuid() == 0


def sandbox(*args, **kw):
    kw = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 60 * SLOW} | kw
    return subprocess.run([SANDBOX, "run", *map(str, args)], **kw)


# -- standard descriptors ------------------------------------------------------------------------------------------------

LOOK = r"""
import os, sys
out = open(sys.argv[1], "w")
for fd in 0, 1, 2:
    try:
        name = os.readlink(f"/proc/self/fd/{fd}")
        try:
            os.read(fd, 1) if fd == 0 else os.write(fd, b"x")
            does = "works"
        except OSError as e:
            does = e.strerror
        print(fd, name, does, file=out)
    except OSError as e:
        print(fd, "none", e.strerror, file=out)
"""


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_descriptors_are_not_filled_with_the_hosts(tmp_path, closed):
    """CVE-2024-21626: else the first files that the launcher opens, a folder of the host's cgroups say, would be the
    standard input and output of a stranger's program."""
    def close():
        for fd in closed:
            os.close(fd)

    tmp_path.chmod(0o755)
    done = subprocess.run([SANDBOX, "run", *(["--uid", "0"] if ROOT else []), "--bind", str(tmp_path), "/x", "--",
                           "/usr/bin/python3", "-c", LOOK, "/x/seen"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, preexec_fn=close, timeout=60 * SLOW, check=False)
    assert done.returncode == 0
    seen = (tmp_path / "seen").read_text().splitlines()
    assert seen == [f"{fd} /dev/null {'Bad file descriptor' if fd in closed else 'works'}" for fd in (0, 1, 2)]


@pytest.mark.parametrize("program", ["spaced", "spacectl", "proxy"])
def test_so_do_the_other_programs(program):
    """Each opens nothing before its standard descriptors are there."""
    done = subprocess.run(["strace", "-qq", "-e", "trace=openat,socket,pipe2,fcntl", BUILD / program, "--help"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          check=False) if os.path.exists("/usr/bin/strace") else pytest.skip("no strace")
    own = [line for line in done.stderr.splitlines() if "O_CLOEXEC" not in line]
    assert [line[:17] for line in own[:3]] == ["fcntl(0, F_GETFD)", "fcntl(1, F_GETFD)", "fcntl(2, F_GETFD)"]


# -- the end -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("command, status, says", [
    (["true"], 0, ""),
    (["sh", "-c", "exit 77"], 77, ""),
    (["sh", "-c", "kill -USR1 $$"], 128 + signal.SIGUSR1, "ended by signal 10"),
    (["no-such-program"], 127, "exec `no-such-program`: No such file or directory"),
    (["/nowhere/at/all"], 127, "inside are the host's /usr and what is bound"),
    (["/etc/passwd"], 126, "exec `/etc/passwd`: Permission denied"),
    (["/tmp"], 126, "exec `/tmp`: Permission denied"),
])
def test_exit_status(command, status, says):
    done = sandbox("--", *command)
    assert done.returncode == status, done.stderr
    assert says in done.stderr and bool(says) == bool(done.stderr)


@pytest.mark.parametrize("options, says", [
    (["--memory", "512MB"], "--memory: `512MB` is not understood: bytes, or with K, M or G behind"),
    (["--memory", "-1"], "--memory: `-1` is not understood"),
    (["--memory", "nan"], "--memory: `nan` is not understood"),
    (["--memory", "100K"], "a memory limit of 102400 bytes is too small: at least 1048576"),
    (["--cpus", "0"], "a number from 0.01 to 4096"),
    (["--cpus", "5000"], "a number from 0.01 to 4096"),
    (["--pids", "1"], "at least 2, one is the sandbox's own"),
    (["--pids", "1.5"], "a whole number"),
    (["--disk", ""], "--disk: `` is not understood"),
    (["--io", "1K"], "an io limit of 1024 bytes per second is too small"),
    (["--timeout", "0"], "whole seconds from 1 to 10000000"),
    (["--timeout", "1.5"], "whole seconds from 1 to 10000000"),
    (["--timeout", "1d"], "with s, m or h behind"),
    (["--bandwidth", "10M"], "--bandwidth: there is no network to limit"),
    (["--egress", "some"], "`some` is none of none, internet, list:FILE"),
    (["--egress", "list:/nonexistent"], "read `/nonexistent`: No such file or directory"),
    (["--env", "A"], "`A` is not NAME=VALUE"),
    (["--cwd", "x"], "not a clean absolute path"),
    (["--cwd", "/x"], "working folder `/x`: No such file or directory"),
    (["--uid", "5000"], "only 0..2046 and 65534 exist inside"),
    (["--ro-bind", "/nonexistent", "/x"], "`/nonexistent`: No such file or directory"),
    (["--ro-bind", "/etc", "/proc/sys"], "`/proc/sys` is not a place for a bind"),
    (["--top", "/etc/passwd"], "--top: `/etc/passwd`: Not a directory"),
    (["--frob"], "unrecognized option '--frob'"),
])
def test_what_cannot_be_is_said(options, says):
    done = sandbox(*options, "--", "true")
    assert done.returncode == 125 and says in done.stderr, done.stderr


@pytest.mark.parametrize("limit", ["1", "90s", "0.5m", "1.1h", "4.1m"])
def test_whole_seconds(limit):
    assert sandbox("--timeout", limit, "--", "true").returncode == 0


def test_wrong_verb():
    done = subprocess.run([SANDBOX, "frob"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (125, "sandbox: `frob` is not understood; try --help\n")


# -- what goes in ----------------------------------------------------------------------------------------------------------

def test_the_last_of_a_variable_counts():
    done = sandbox("--env", "A=1", "--env", "HOME=/tmp", "--env", "AB=3", "--env", "A=2", "--", "env")
    assert done.stdout.splitlines()[:3] == ["A=2", "HOME=/tmp", "AB=3"]
    assert done.stdout.count("A=") == 1


def test_slashes_at_the_end():
    done = sandbox("--ro-bind", "/etc/", "/x/y//", "--cwd", "/x/", "--", "sh", "-c", "pwd; ls -d y/passwd")
    assert done.stdout == "/x\ny/passwd\n", done.stderr


def test_long_command_lines():
    done = sandbox("--env", "A=" + "a" * 120000, "--", "sh", "-c", "echo $# ${#A}", "sh", *["1234567"] * 20000)
    assert done.stdout == "20000 120000\n", done.stderr


def test_bytes_that_are_no_text():
    done = sandbox("--env", b"A=\xff".decode(errors="surrogateescape"), "--", "sh", "-c", "printf '%s' $A $1", "sh",
                   b"\xfe".decode(errors="surrogateescape"), text=False)
    assert done.stdout == b"\xff\xfe"


def test_a_list_by_any_name(tmp_path):
    (tmp_path / "list").write_text("example.org\n10.0.0.1\n")
    (tmp_path / "link").symlink_to("list")
    for name, text in (f"{tmp_path}/link", None), ("/dev/stdin", "example.org\n10.0.0.1\n"):
        done = sandbox("--egress", f"list:{name}", "--", "true", stdin=None if text else subprocess.DEVNULL, input=text) \
            if text else sandbox("--egress", f"list:{name}", "--", "true")
        assert done.returncode == 125 and "line 2: egress entry `10.0.0.1`" in done.stderr, done.stderr


def test_a_top_belongs_to_one(tmp_path):
    """An overlay whose upper folder has two mounts does what it likes."""
    first = subprocess.Popen([SANDBOX, "run", "--top", str(tmp_path), "--", "sh", "-c", "echo up; read line"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "up\n"
        second = sandbox("--top", tmp_path, "--", "true")
        assert second.returncode == 125 and "another sandbox is using it" in second.stderr
        first.communicate("\n", timeout=60 * SLOW)
    finally:
        first.kill()
        first.wait()
    assert sandbox("--top", tmp_path, "--", "true").returncode == 0


# -- what a host does not give -----------------------------------------------------------------------------------------------

def test_limits_that_are_not_kept_are_said():
    done = sandbox("--rootless", "--memory", "64M", "--cpus", "1", "--", "true",
                   env={**os.environ, "SPACED_FORCE": "cgroup_none"})
    assert done.returncode == 0
    assert re.findall(r"^sandbox: (--\w+): this host gives no such cgroup", done.stderr, re.M) == ["--memory", "--cpus"]


@pytest.mark.skipif(not ROOT, reason="needs root: gives capabilities away")
@pytest.mark.parametrize("force", ["", "mount_legacy"])
def test_root_of_a_container(force):
    """Without CAP_SYS_ADMIN, as root of a container mostly is: a sentence, and no crash."""
    done = subprocess.run(["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", SANDBOX, "run", "--", "true"],
                          capture_output=True, text=True, env={**os.environ, "SPACED_FORCE": force}, check=False)
    assert done.returncode == 125 and "root needs CAP_SYS_ADMIN" in done.stderr, (done.returncode, done.stderr)


def test_root_of_a_namespace(tmp_path):
    """unshare -r: root in name, an ordinary user in fact."""
    done = subprocess.run(["unshare", "-Ur", SANDBOX, "run", "--", "id", "-u"], capture_output=True, text=True, check=False,
                          env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)})
    if "unshare failed" in done.stderr:
        pytest.skip("no user namespaces")
    assert (done.returncode, done.stdout) == (0, "1000\n"), done.stderr


# -- signals ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("ignored", [True, False])
def test_what_the_caller_ignores(signum, ignored):
    """nohup(1), and what a script runs behind &. Of two signals that are there at once, the lower number is taken first."""
    script = f'trap "exit 4" {signum}; trap "exit 5" USR1; echo up; while :; do sleep 0.02; done'
    run = subprocess.Popen([SANDBOX, "run", "--", "sh", "-c", script], stdout=subprocess.PIPE, text=True,
                           preexec_fn=lambda: signal.signal(signum, signal.SIG_IGN if ignored else signal.SIG_DFL))
    try:
        assert run.stdout.readline() == "up\n"
        for each in signal.SIGSTOP, signum, signal.SIGUSR1, signal.SIGCONT:
            run.send_signal(each)
        assert run.wait(60 * SLOW) == (5 if ignored else 4)
    finally:
        run.kill()
        run.wait()


# -- a terminal ------------------------------------------------------------------------------------------------------------

class Terminal:
    """A command at a terminal of its own, whose session it leads."""

    def __init__(self, *argv):
        self.text = ""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            # A child that stops needs a parent in the session, or it is not stopped.
            os.execvp("sh", ["sh", "-mc", '"$@"; echo status=$?; while read line; do fg; echo again=$?; done', "sh", *argv])

    def read_until(self, mark):
        deadline = time.monotonic() + 60 * SLOW
        while mark not in self.text:
            assert select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0], self.text
            try:
                self.text += os.read(self.master, 4096).decode()
            except OSError as e:
                raise AssertionError(self.text) from e
        self.text = self.text.split(mark, 1)[1]

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.master)


@pytest.fixture
def at_terminal():
    made = []

    def make(*argv):
        made.append(Terminal(*argv))
        return made[-1]
    yield make
    for terminal in made:
        terminal.end()


@pytest.mark.parametrize("key, status", [(b"\x03", 128 + signal.SIGINT), (b"\x1c", 5)])
def test_keys_are_for_all_that_run(at_terminal, key, status):
    """bash waits for its child and then looks whether that was interrupted: Ctrl-C has to reach both. It ignores SIGQUIT."""
    child = "import time; print('up', flush=True); time.sleep(1000)"
    terminal = at_terminal(SANDBOX, "run", "--", "bash", "-c", f'python3 -c "{child}" | cat; exit 5')
    terminal.read_until("up")
    os.write(terminal.master, key)
    terminal.read_until(f"status={status}")


def test_stop_and_go_on(at_terminal, tmp_path):
    """Ctrl-Z stops what is inside, too, where the host can freeze it."""
    tmp_path.chmod(0o777)
    beat = tmp_path / "beat"
    terminal = at_terminal(SANDBOX, "run", *(["--uid", "0"] if ROOT else []), "--bind", str(tmp_path), "/x", "--", "sh", "-c",
                           "echo up; while [ ! -e /x/end ]; do echo . >> /x/beat; sleep 0.02; done; exit 9")
    terminal.read_until("up")
    wait_for("a beat", lambda: beat.exists() and beat.stat().st_size)
    (child,) = Path(f"/proc/{terminal.pid}/task/{terminal.pid}/children").read_text().split()
    os.write(terminal.master, b"\x1a")
    wait_for("the launcher to stop", lambda: Path(f"/proc/{child}/stat").read_text().rsplit(") ", 1)[1][0] == "T")
    probe = subprocess.run([SANDBOX, "probe"], capture_output=True, text=True, check=False).stdout
    if "cgroup none" in probe:
        terminal.read_until("what is inside goes on")
    else:
        size = beat.stat().st_size
        time.sleep(0.5)  # many beats long
        assert beat.stat().st_size == size
    size = beat.stat().st_size
    os.write(terminal.master, b"\n")
    wait_for("a beat after it went on", lambda: beat.stat().st_size > size)
    (tmp_path / "end").touch()
    terminal.read_until("again=9")
