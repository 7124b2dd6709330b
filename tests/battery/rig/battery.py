"""One run of the battery in one configuration: where things are, how a probe gets inside and outside."""
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading

from .case import Acts, Broken, Escape, Inapplicable
from .host import Host, kill_tree
from .tenants import LIMITS, POISON, Tenants
from .victim import Victim

HERE = pathlib.Path(__file__).resolve().parents[1]
ROOT = HERE.parents[1]
LIMIT_S = 600  # wall clock of one probe; each family of D7 may be a module to load
sys.path.insert(0, str(ROOT / "tests" / "e2e"))


class Battery:
    controls = {}  # case -> Acts: the same in every configuration

    def __init__(self, config, work, build, programs):
        self.config = config
        self.work = work
        self.tools = pathlib.Path(build, "tests", "battery")  # probe, shim, walls
        self.build = pathlib.Path(build if config.build == "build" else ROOT / config.build)
        self.sandbox = os.environ.get("SANDBOX", str(self.build / "sandbox")) if config.build == "build" else str(
            self.build / "sandbox")
        self.walls = os.environ.get("BATTERY_WALLS", str(self.tools / "walls"))
        self.probe = f"{work}/probe"
        shutil.copy(self.tools / "probe", self.probe)
        self.stack = contextlib.ExitStack()
        self.stack.enter_context(environment({**config.env, "SPACED_BUILD": str(self.build)}))
        self.env = dict(os.environ)
        self.spaces = set()  # that have been pushed to the daemon
        self.daemon_used = False  # by the case that runs
        self.host = Host(work, programs)
        self.stack.callback(self.host.close)
        self._daemon = self._tenants = None
        try:
            self.victim = Victim(self.box(), self.env)
        except Exception:
            self.stack.close()
            raise
        self.stack.callback(self.victim.close)

    def close(self):
        self.stack.close()

    # --- sandboxes

    def box(self, *options):
        """The start of a command line: what follows is options, `--` and the command."""
        shim = [str(self.tools / "shim"), self.config.shim] if self.config.shim else []
        return [*shim, self.sandbox, "run", *self.config.options, *options]

    def start(self, argv, **more):
        """Popen of a command line from box()."""
        return subprocess.Popen(argv, env=more.pop("env", self.env), **more)

    def run(self, argv, timeout=LIMIT_S, **more):
        """The same, waited for: CompletedProcess with text."""
        process = self.start(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             stdin=more.pop("stdin", subprocess.DEVNULL), text=True, errors="replace", **more)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            kill_tree(process.pid)
            process.communicate()
            raise Broken(f"no end after {timeout} s: {' '.join(map(str, argv))[-200:]}") from None
        if "AddressSanitizer" in err or "runtime error:" in err:
            raise Escape(f"the launcher: {err[:600]}")
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    @contextlib.contextmanager
    def hold(self, argv, ready="fact ready"):
        """A command that says `ready` at the start of a line and then waits for a line of ours: (process, lines so far).
        What it says after `process.stdin.write("\\n")` is for the caller; it is killed at the end of the block."""
        process = self.start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             errors="replace")
        limit = threading.Timer(LIMIT_S, kill_tree, [process.pid])
        limit.start()
        lines = []
        try:
            for line in process.stdout:
                lines.append(line)
                if line.startswith(ready):
                    break
            else:
                said = process.stderr.read()
                self.refused_by_kernel(said)
                raise Broken(f"it never said `{ready}`: {''.join(lines)[-200:]} {said[-300:]}")
            yield process, lines
        finally:
            limit.cancel()
            process.terminate()
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                kill_tree(process.pid)
                process.communicate()

    # --- what a sandbox is made of

    @property
    def bind(self):
        """The option for a folder that does not need to be written: without mount_setattr writable ones are refused."""
        return "--ro-bind" if self.config.shim == "legacy-mount" else "--bind"

    def refused_by_kernel(self, stderr):
        """A start that this configuration refuses, with that reason, is not one that failed."""
        if self.config.shim == "legacy-mount" and "has no mount_setattr(2)" in stderr:
            raise Inapplicable("without mount_setattr(2) the launcher refuses a folder that is written")

    @property
    def rootless(self):
        return self.config.name == "rootless"

    @property
    def owner(self):
        """Who must own on disk what the app owns inside."""
        return 65534 if self.rootless else 1000

    def folder(self, name):
        path = f"{self.work}/{name}"
        os.makedirs(path, exist_ok=True)
        os.chmod(path, 0o755)
        return path

    def volume(self, name):
        """A folder to be bound writable."""
        path = self.folder(name)
        os.chown(path, self.owner, self.owner)
        return path

    def layer(self, name, *links, files=()):
        """A layer for --layer: links are (path, target), files are (path, content)."""
        path = self.folder(name)
        for inside in ("root", *(f"root/{os.path.dirname(p)}".rstrip("/") for p, _ in (*links, *files))):
            os.makedirs(f"{path}/{inside}", exist_ok=True)
        if os.path.isdir(f"{path}/root/opt"):  # whose owner the launcher may not be: the probe's place is made here
            open(f"{path}/root/opt/probe", "wb").close()
        for at, target in links:
            os.symlink(target, f"{path}/root/{at}")
        for at, content in files:
            with open(f"{path}/root/{at}", "wb") as f:
                f.write(content)
        return path

    # --- probes

    def arguments(self, case):
        return [case.verb or case.id] + ([case.argument(self)] if case.argument else [])

    def said(self, done):
        self.refused_by_kernel(done.stderr)
        acts = Acts.parse(done.stdout, done.stderr)
        if not acts or done.returncode == 99:
            raise Broken(f"the probe said nothing (status {done.returncode}): {done.stderr.strip()[-400:]}")
        return acts

    def inside(self, case, *options, **more):
        """The acts of a case in a sandbox. The caller has a descriptor of `/` open, which must not get in (A9)."""
        options = [*(case.options(self) if callable(case.options) else case.options), *options]
        root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        try:
            return self.said(self.run([*self.box("--timeout", "300s", "--ro-bind", self.probe, "/opt/probe", *options),
                                       "--", "/opt/probe", *self.arguments(case)],
                                      env={**self.env, **case.env}, pass_fds=(root, *more.pop("pass_fds", ())), **more))
        finally:
            os.close(root)

    def outside(self, case, pass_fds=()):
        """The positive control: as root, in mounts of its own (and more, by case.control)."""
        if case.id not in self.controls:
            root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
            try:
                argv = ["unshare", "-m", "--propagation", "private", *case.control, self.probe, *self.arguments(case)]
                process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                           stdin=subprocess.DEVNULL, errors="replace", pass_fds=(root, *pass_fds),
                                           env={**os.environ, **case.env})
                try:
                    out, err = process.communicate(timeout=LIMIT_S)
                except subprocess.TimeoutExpired:
                    kill_tree(process.pid)
                    process.communicate()
                    raise Broken(f"no end outside after {LIMIT_S} s") from None
                self.controls[case.id] = self.said(subprocess.CompletedProcess(argv, process.returncode, out, err))
            finally:
                os.close(root)
        return self.controls[case.id]

    # --- a daemon

    def daemon(self):
        """A running spaced (tests/e2e/harness.py), started when the first case wants one; it ends with the run."""
        self.daemon_used = True
        if self._daemon is None:
            from harness import Spaced
            daemon = Spaced()
            self.stack.callback(daemon.close)
            self._daemon = daemon.start()
        return self._daemon

    def tenants(self):
        """The attacker and the victim as Spaces of a daemon of their own, with small limits (rig/tenants.py)."""
        if self._tenants is None:
            from harness import Repo, Spaced
            daemon = Spaced(**LIMITS)
            self.stack.callback(daemon.close)
            with environment(POISON):
                daemon.start()
            self._tenants = Tenants(self, daemon, Repo)
        return self._tenants


@contextlib.contextmanager
def environment(more):
    """Of ours and of all that we start, for a while."""
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def hush():
    """A run that is stopped by a signal cleans up like one that ends, however often it is asked."""
    endings = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

    def end(number, _):
        for one in endings:
            signal.signal(one, signal.SIG_IGN)
        sys.exit(128 + number)

    for one in endings:
        if signal.getsignal(one) != signal.SIG_IGN:  # nohup(1)
            signal.signal(one, end)
