"""A real daemon in a temporary state folder, and real clients for it. conftest.py makes fixtures of this."""
import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = (ROOT / os.environ.get("SPACED_BUILD", "build")).resolve()
EXAMPLES = ROOT / "examples"
SLOW = float(os.environ.get("SPACED_SLOW", "1"))  # how much longer an emulated CPU may take
ROLES = ("spawner", "control", "proxy", "static")

# Becomes a program with the socket of the first argument at 3, as sd_listen_fds(3) has it.
HAND_OVER = """
import os, sys
fd = int(sys.argv[1])
os.dup2(fd, 3)
os.set_inheritable(3, True)
if fd != 3:
    os.close(fd)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="public")
os.execv(sys.argv[2], sys.argv[2:])
"""

# Browsers and curl resolve *.localhost themselves; Python asks the system, which may not.
_getaddrinfo = socket.getaddrinfo


def _loopback_getaddrinfo(host, *args, **kwargs):
    if isinstance(host, str) and (host == "localhost" or host.endswith(".localhost")):
        host = "127.0.0.1"
    return _getaddrinfo(host, *args, **kwargs)


socket.getaddrinfo = _loopback_getaddrinfo


def wait_for(what, condition, timeout=60.0, interval=0.05):
    """Polls until `condition()` is true and returns its value; fails by naming `what` and the last value."""
    timeout *= SLOW
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}; last: {value!r}")
        time.sleep(interval)


def reserved_port():
    """A socket that holds a port for as long as it is open: no other test gets it, but a server that asks for it may listen there
    (SO_REUSEADDR). Until then it refuses. It lies below those that the system gives to outgoing connections: one of these may
    take a port, and hold it for a minute of TIME_WAIT, while a daemon is started again."""
    below = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        s = socket.socket()
        try:
            s.bind(("127.0.0.1", random.randrange(10000, below) if below > 12000 else 0))
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not before: it would get the port of another one like it
            return s
        except OSError:
            s.close()


def free_port():
    with reserved_port() as s:
        return s.getsockname()[1]


def git_env(home):
    """A git without the developer's own configuration, that never asks."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") and not k.lower().endswith("_proxy")}
    env.update(HOME=str(home), GIT_CONFIG_NOSYSTEM="1", GIT_CONFIG_GLOBAL="/dev/null", GIT_TERMINAL_PROMPT="0",
               GIT_AUTHOR_NAME="Alice", GIT_AUTHOR_EMAIL="alice@example.org",
               GIT_COMMITTER_NAME="Alice", GIT_COMMITTER_EMAIL="alice@example.org", LC_ALL="C.UTF-8")
    return env


class Repo:
    """A work tree to push from."""

    def __init__(self, path, source=None, files=None):
        self.path = Path(path)
        if source:
            shutil.copytree(source, self.path, ignore=shutil.ignore_patterns("__pycache__", "node_modules", "dist"),
                            symlinks=True)
        self.path.mkdir(parents=True, exist_ok=True)
        self.env = git_env(self.path.parent)
        self.git("init", "-q", "-b", "main")
        self.write(files or {})
        # a commit of its own, also when two work trees get the same files within a second: tests look for tips
        self.commit(f"first of {os.urandom(8).hex()}")

    def git(self, *args, check=True, **kw):
        return subprocess.run(["git", *args], cwd=self.path, env=self.env, check=check, text=True,
                              capture_output=True, **kw).stdout.strip()

    def write(self, files):
        for name, text in files.items():
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(text, bytes):
                target.write_bytes(text)
            else:
                target.write_text(text, encoding="utf-8")

    def commit(self, message, files=None):
        self.write(files or {})
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.head()

    def head(self):
        return self.git("rev-parse", "HEAD")


@dataclass
class Response:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.body)


class Spaced:
    """One daemon. `options` go to its command line (`memory="64M"` becomes --memory 64M). `become`: a command line that runs
    the daemon and spacectl as somebody else. `program`: another spaced. `held`: the public socket is ours, and handed to the
    daemon as systemd does it."""

    def __init__(self, state=None, port=None, become=(), program=None, held=False, **options):
        self.domain = "localhost"
        self.held = socket.create_server(("127.0.0.1", port or 0), backlog=4096) if held else None
        self.reserved = None if held or port else reserved_port()
        self.port = port or (self.held or self.reserved).getsockname()[1]
        self.program = program or BUILD / "spaced"
        self.url = f"http://{self.domain}:{self.port}"
        self.home = Path(tempfile.mkdtemp(prefix="spaced-test-", dir="/var/tmp"))
        self.home.chmod(0o755)
        self.state = Path(state) if state else self.home / "state"
        self.log_path = self.home / "spaced.log"
        self.become = list(become)
        self.options = options
        self.process = None
        self.tokens = {}

    # --- the daemon itself

    def start(self, timeout=60):
        argv = [*self.become, str(self.program), "--state", str(self.state), "--listen", f"127.0.0.1:{self.port}",
                "--domain", self.domain]
        if self.held:
            argv = [sys.executable, "-c", HAND_OVER, str(self.held.fileno()), *argv]
        for key, value in self.options.items():
            argv += [f"--{key.replace('_', '-')}", str(value)]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                            pass_fds=[self.held.fileno()] if self.held else [])

        def healthy():
            if self.process.poll() is not None:
                raise AssertionError(f"spaced ended with status {self.process.returncode}:\n{self.log_tail()}")
            return self.healthy()

        try:
            wait_for("the daemon to answer /healthz", healthy, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_tail()}") from None
        return self

    def healthy(self):
        try:
            return self.request("GET", "/healthz", timeout=20).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def stop(self, sig=signal.SIGTERM, timeout=60):
        """SIGTERM leaves the apps running, to be adopted; SIGINT stops them too."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(sig)
            try:
                self.process.wait(timeout * SLOW)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"spaced did not end within {timeout} s of {sig.name}:\n{self.log_tail()}") from None
        return self.process.returncode if self.process else None

    def restart(self, **kw):
        self.stop()
        return self.start(**kw)

    def close(self):
        try:
            if self.process:
                if self.process.poll() is not None:
                    self.start()  # to stop the apps it had left running
                self.stop(signal.SIGINT)
        finally:
            if self.process and self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            if self.reserved:
                self.reserved.close()
            if not os.environ.get("SPACED_KEEP"):
                shutil.rmtree(self.home, ignore_errors=True)

    def log_tail(self, lines=40):
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    # --- its processes

    def pids(self, role=None):
        """{role: [pid, ...]}, or the list of one role. Children of the parent, by the `--role` on their command line."""
        found = {name: [] for name in ROLES}
        for pid in child_pids(self.process.pid):
            argv = cmdline(pid)
            if "--role" in argv:
                found.setdefault(argv[argv.index("--role") + 1], []).append(pid)
        return found[role] if role else found

    def kill_role(self, role, sig=signal.SIGKILL):
        """Kills all processes of a role and waits until the parent has replaced them."""
        before = set(self.pids(role))
        assert before, f"no process of role {role}"
        for pid in before:
            os.kill(pid, sig)

        def replaced():
            now = set(self.pids(role))
            return len(now) >= len(before) and not now & before

        wait_for(f"a new {role}", replaced)
        return before

    def monitors(self, space_id):
        """Pids of the monitors of a Space's instances: by their name and the log that they hold open."""
        wanted = f"{self.state}/logs/run-{space_id}-"
        found = []
        for comm in Path("/proc").glob("[0-9]*/comm"):
            try:
                if comm.read_text().strip() == "spaced-monitor" and any(
                        os.readlink(fd).startswith(wanted) for fd in comm.parent.joinpath("fd").iterdir()):
                    found.append(int(comm.parent.name))
            except OSError:
                continue
        return found

    def memory(self, kind="Pss"):
        """KiB of all roles and the parent, from smaps_rollup: Rss counts shared pages in each process, Pss once."""
        total = 0
        # the look at the host, made once after the start, is a process that ends by itself
        wait_for("only roles below the parent",
                 lambda: len(child_pids(self.process.pid)) == sum(map(len, self.pids().values())), 60)
        for pid in [self.process.pid, *child_pids(self.process.pid)]:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(f"{kind}:"):
                    total += int(line.split()[1])
        return total

    # --- people

    def spacectl(self, *args, check=False, timeout=120, stdin=None):
        done = subprocess.run([*self.become, str(BUILD / "spacectl"), "--state", str(self.state), *map(str, args)], text=True,
                              capture_output=True, timeout=timeout, input=stdin)
        if check and done.returncode:
            raise AssertionError(f"spacectl {' '.join(map(str, args))}: status {done.returncode}\n{done.stderr}{done.stdout}")
        return done.returncode, done.stdout, done.stderr

    def ctl_json(self, *args):
        return json.loads(self.spacectl("--json", *args, check=True)[1])

    def token(self, user="alice"):
        if user not in self.tokens:
            code, _, err = self.spacectl("user", "add", user)
            assert code == 0 or "exist" in err, err
            self.tokens[user] = self.spacectl("token", "add", user, check=True)[1].strip()
        return self.tokens[user]

    # --- git

    def remote(self, owner, name, user=None, token=None):
        user = user or owner
        token = self.token(user) if token is None else token
        return f"http://{user}:{token}@{self.domain}:{self.port}/spaces/{owner}/{name}"

    def push(self, repo, owner, name, ref="main", *git_args, user=None, token=None, timeout=600):
        """`git push` of a Repo or folder; the CompletedProcess has both streams in .stdout."""
        repo = repo if isinstance(repo, Repo) else Repo(Path(tempfile.mkdtemp(dir=self.home)) / "repo", source=repo)
        return subprocess.run(["git", "push", *git_args, self.remote(owner, name, user, token), ref], cwd=repo.path,
                              env=repo.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)

    def push_ok(self, *args, **kw):
        done = self.push(*args, **kw)
        assert done.returncode == 0, done.stdout
        return done.stdout

    # --- Spaces

    def show(self, owner, name):
        return self.ctl_json("space", "show", f"{owner}/{name}")

    def runtime(self, owner, name):
        shown = self.show(owner, name)
        return shown.get("runtime") or shown

    def told(self, owner, name):
        """The runtime of a public Space as anybody reads it: by control alone, and without a process of its own."""
        return self.request("GET", f"/api/spaces/{owner}/{name}/runtime").json()

    def stage(self, owner, name):
        return self.runtime(owner, name)["stage"]

    def wait_stage(self, owner, name, stage, timeout=120):
        wanted = {stage} if isinstance(stage, str) else set(stage)
        seen = []

        def there():
            now = self.stage(owner, name)
            if not seen or seen[-1] != now:
                seen.append(now)
            return now if now in wanted else None

        try:
            return wait_for(f"{owner}/{name} to be {' or '.join(sorted(wanted))}", there, timeout, 0.1)
        except AssertionError as error:
            build = self.spacectl("space", "logs", "--build", f"{owner}/{name}")[1][-2000:]
            run = self.spacectl("space", "logs", f"{owner}/{name}")[1][-2000:]
            raise AssertionError(f"{error}; stages {seen}\nbuild log:\n{build}\nrun log:\n{run}\ndaemon:\n"
                                 f"{self.log_tail()}") from None

    def logs(self, owner, name, build=False):
        return self.spacectl("space", "logs", *(["--build"] if build else []), f"{owner}/{name}", check=True)[1]

    def label(self, owner, name):
        return f"{owner}-{name}".lower().replace("_", "-").replace(".", "-")

    def host(self, owner, name):
        return f"{self.label(owner, name)}.{self.domain}"

    def app_url(self, owner, name):
        return f"http://{self.host(owner, name)}:{self.port}"

    # --- HTTP

    def request(self, method, path, host=None, headers=None, body=None, timeout=60):
        """One request on its own connection. `host` without port; the apex by default."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            all_headers = {"Host": f"{host or self.domain}:{self.port}", **(headers or {})}
            connection.request(method, path, body=body, headers=all_headers)
            answer = connection.getresponse()
            return Response(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, owner, name, path="/", **kw):
        return self.request(kw.pop("method", "GET"), path, host=self.host(owner, name), **kw)

    def get_ok(self, owner, name, path="/", timeout=60, **kw):
        """The app's page, once it is there."""
        last = []

        def answer():
            try:
                last[:] = [self.get(owner, name, path, **kw)]
            except (OSError, http.client.HTTPException) as error:
                last[:] = [error]
                return None
            return last[0] if last[0].status == 200 else None

        try:
            return wait_for(f"200 from {owner}/{name}{path}", answer, timeout, 0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}; last {last[0]}\n{self.log_tail()}") from None


def child_pids(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def cmdline(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def processes(*words):
    """Pids of all processes on whose command line all `words` stand."""
    return sorted(int(entry.name) for entry in Path("/proc").glob("[0-9]*")
                  if (argv := cmdline(int(entry.name))) and all(any(w in a for a in argv) for w in words))


def app_processes(space):
    """Pids of what runs for a Space (`owner/name`), by its environment: the cgroup of an app may be one that was made ahead, and
    says nothing of it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"SPACE_ID={space}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            pass
    return found


def is_stopped(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")


@contextlib.contextmanager
def held_up(daemon):
    """What is to be started in here does not come up before the end of it, however long that takes: the spawner stands still."""
    spawner, = daemon.pids("spawner")
    os.kill(spawner, signal.SIGSTOP)
    try:
        wait_for("the spawner to stop", lambda: is_stopped(spawner))
        yield
    finally:
        os.kill(spawner, signal.SIGCONT)
