"""Two Spaces of one daemon: the attacker, who does what a case tells it, and the victim beside it with a secret. While a
case runs, both the victim and the daemon's health are asked all the time; afterwards the victim must be as it was, the
attacker runs again, and the daemon's roles are the ones that were."""
import functools
import glob
import http.client
import json
import os
import pathlib
import threading
import time

from .case import Broken, Escape

# Small, so that an abuse is at its limit within a second or two.
LIMITS = {"memory": "384M", "pids": "128", "disk": "64M", "cpus": "0.5", "log_size": "2M", "startup_timeout": "30s",
          "build_memory": "512M", "build_pids": "128", "build_disk": "96M", "build_timeout": "15s"}
MEMORY, PIDS, DISK, CPUS, LOG = 384 << 20, 128, 64 << 20, 0.5, 2 << 20
# In the environment of whoever starts the daemon: nothing below it may ever see them (H2).
POISON = {"GIT_DIR": "/tmp/poison", "GIT_SSH_COMMAND": "poison", "BASH_ENV": "/tmp/poison", "PYTHONPATH": "/tmp/poison",
          "POISON_SECRET": "canary"}
ANSWER_S = 30  # a bound on hanging: how quick it is, is printed
PATIENCE = 5  # so much longer it may take on a busy machine

ATTACKER = r'''
import http.server, json, os, signal, subprocess, sys, threading, time
KEEP = []
class Attacker(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def say(self, body, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == "/fields":
            return self.say(json.dumps([self.requestline, list(self.headers.items())]).encode())
        if self.path == "/endless":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while True:
                self.wfile.write(b"10000\r\n" + bytes(65536) + b"\r\n")
        if self.path == "/drip":
            for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 600:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(1)
        self.say(b"attacker")
    def do_PUT(self):
        time.sleep(600)  # never reads the body
    def do_POST(self):
        task = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        process = subprocess.Popen(task["argv"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   start_new_session=True)
        if task["background"]:
            KEEP.append(process)
            return self.say(b"{}")
        try:
            out, err = process.communicate(timeout=task["timeout"])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
        self.say(json.dumps([process.returncode, out.decode(errors="replace"), err.decode(errors="replace")]).encode())
    def log_message(self, *a):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
Server(("0.0.0.0", int(os.environ["PORT"])), Attacker).serve_forever()
'''

VICTIM = r'''
import http.server, os, pathlib, socket
secret = pathlib.Path("secret").read_text()
pathlib.Path("/tmp/secret").write_text(secret)
os.environ["VICTIM_SECRET"] = secret
def address():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("8.8.8.8", 53))
            return s.getsockname()[0]
        except OSError:
            return ""
class Victim(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        text = address() if self.path == "/address" else f"{secret} {os.getpid()} {sorted(os.listdir('/tmp'))}"
        if self.path == "/disk":
            with open("/app/disk", "w") as f:
                f.write(secret)
                os.fsync(f.fileno())
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
    def log_message(self, *a):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
Server(("0.0.0.0", int(os.environ["PORT"])), Victim).serve_forever()
'''


class Watch:
    """Asks the victim and the daemon in turn, from the beginning of a case to its end, however short that is once."""

    def __init__(self, tenants):
        self.tenants, self.wrong, self.end = tenants, [], threading.Event()
        self.times = {"victim": [], "health": []}
        self.thread = threading.Thread(target=self.ask, daemon=True)

    def ask(self):
        daemon = self.tenants.daemon
        over = False
        while not over:
            for who, path, host in (("victim", "/", daemon.host("bob", "victim")), ("health", "/healthz", None)):
                begin = time.monotonic()
                try:
                    answer = daemon.request("GET", path, host=host, timeout=ANSWER_S)
                    if answer.status != 200 or (who == "victim" and answer.text != self.tenants.first):
                        self.wrong.append(f"{who}: {answer.status} {answer.text[:100]!r}")
                except (OSError, http.client.HTTPException) as error:
                    self.wrong.append(f"{who}: {error!r} after {time.monotonic() - begin:.1f} s")
                self.times[who].append(time.monotonic() - begin)
            over = self.end.wait(0.02)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.end.set()
        self.thread.join()

    def text(self):
        p99 = {who: sorted(t)[int(len(t) * 0.99)] * 1000 for who, t in self.times.items() if t}
        return ", ".join(f"{who} p99 {ms:.0f} ms" for who, ms in p99.items())


class Tenants:
    def __init__(self, battery, daemon, repo):
        self.battery, self.daemon = battery, daemon
        self.secret = os.urandom(16).hex()
        self.word = f"attacker-{os.urandom(8).hex()}"
        work = pathlib.Path(battery.work, "tenants")
        probe = pathlib.Path(battery.probe).read_bytes()
        attacker = repo(work / "attacker", files={"app.py": ATTACKER, "probe": probe,
                                                  "Procfile": f"web: exec python3 app.py {self.word}\n"})
        os.chmod(attacker.path / "probe", 0o755)
        attacker.commit("executable")
        victim = repo(work / "victim", files={"app.py": VICTIM, "secret": self.secret,
                                              "Procfile": "web: exec python3 app.py\n"})
        daemon.push_ok(attacker, "alice", "attacker")
        daemon.push_ok(victim, "bob", "victim")
        self.first = daemon.get_ok("bob", "victim").text
        assert self.secret in self.first
        self.up()
        self.roles = daemon.pids()

    # --- the attacker

    def up(self):
        """The attacker answers, started again if it has to be."""
        try:
            if self.daemon.get("alice", "attacker", timeout=ANSWER_S).text == "attacker":
                return
        except (OSError, http.client.HTTPException):
            pass
        self.restart()

    def restart(self):
        self.daemon.spacectl("space", "restart", "alice/attacker", check=True)
        self.daemon.wait_stage("alice", "attacker", "RUNNING", 60)
        assert self.daemon.get_ok("alice", "attacker").text == "attacker"

    def run(self, *argv, timeout=60, background=False):
        """A command inside the attacker: (status, output, errors), or None when the whole app died of it."""
        task = json.dumps({"argv": argv, "timeout": timeout, "background": background})
        try:
            answer = self.daemon.get("alice", "attacker", "/run", method="POST", body=task, timeout=timeout + 30)
        except (OSError, http.client.HTTPException):
            return None
        if answer.status in (502, 503, 504):
            return None
        if answer.status != 200:
            raise Broken(f"the attacker answers {answer.status} {answer.text[:200]}")
        return answer.json()

    def python(self, code, *args, **kw):
        done = self.run("python3", "-c", code, *args, **kw)
        if done is None or done[0] != 0:
            raise Broken(f"the attack in Python did not work: {done and done[2][-500:]}")
        return done[1]

    def probe(self, case, **kw):
        """The acts of a case inside the attacker; raises when the app died of them."""
        done = self.run("/app/probe", *self.battery.arguments(case), **kw)
        if done is None:
            raise Broken("the attacker died of the probe")
        return self.battery.said(_Done(*done))

    def pid(self):
        """The attacker's main process as the host sees it."""
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                argv = pathlib.Path(path).read_bytes().split(b"\0")
            except OSError:
                continue
            if argv[:2] == [b"python3", b"app.py"] and self.word.encode() in argv:
                return int(path.split("/")[2])
        raise Broken("the attacker has no process")

    def group(self, controller):
        """Its cgroup of a controller: a folder; None when this host has none for it."""
        for line in pathlib.Path(f"/proc/{self.pid()}/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            if "/spaced-" not in path:
                continue  # not ours: the daemon has no use for it on this host
            tops = [f"/sys/fs/cgroup/{names}"] if names else ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            for top in tops:
                folder = pathlib.Path(top + path)
                if (controller in names.split(",") or not names) and (folder / "cgroup.procs").exists() and any(
                        folder.glob(f"{controller}.*")):
                    return folder
        return None

    # --- the daemon

    def group_dirs(self):
        """Groups of all its sandboxes, in every hierarchy that can be seen; those that were made ahead and given to one by its
        name, and those that wait for one not at all."""
        owners = self.shells()
        found = [path for path in glob.glob(f"/sys/fs/cgroup/**/{self.tree()}/*", recursive=True) if os.path.isdir(path)]
        named = {path for path in found if not os.path.basename(path).startswith("shell.")}
        for path in set(found) - named:
            folder, number = path.rsplit("shell.", 1)
            if int(number) in owners:
                named.add(folder + owners[int(number)])
        return named

    def shells(self):
        """{number: instance}, by the spawner's notes (info_write() in adopt.c): {u32 version, str name, u8, 3 u64, u32, u64, u32
        egress, u32 shell, ...} of instances that have not ended."""
        found = {}
        for note in pathlib.Path(self.daemon.state, "sandboxes").glob("*/info"):
            try:
                data = note.read_bytes()
            except FileNotFoundError:  # it has just been removed
                continue
            n = int.from_bytes(data[4:8], "little")
            at = 8 + n + 1 + 3 * 8 + 4 + 8 + 4
            if not (note.parent / "ended").exists():
                found[int.from_bytes(data[at:at + 4], "little")] = data[8:8 + n].decode()
        return found

    def tree(self):
        for line in pathlib.Path(f"/proc/{self.pid()}/cgroup").read_text().splitlines():
            parts = line.split(":", 2)[2].strip("/").split("/")
            for part in parts:
                if part.startswith("spaced-"):
                    return part
        raise Broken("the attacker is in no cgroup of the daemon's")

    def descriptors(self, role):
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.daemon.pids(role))


class _Done:
    def __init__(self, status, out, err):
        self.returncode, self.stdout, self.stderr = status, out, err


def check(held, what):
    """A wall; `what` says in words that it was passed."""
    if not held:
        raise Escape(what)


def watched(limit, roles_stay=True):
    """A case beside a victim: `fn(tenants, case)` with the wall clock that it may take where nobody else has work."""
    def decorate(fn):
        @functools.wraps(fn)
        def run(battery, case):
            tenants = battery.tenants()
            tenants.up()
            tenants.roles = tenants.daemon.pids()
            begin = time.monotonic()
            with Watch(tenants) as watch:
                text = fn(tenants, case)
            took = time.monotonic() - begin
            check(not watch.wrong, f"beside it: {watch.wrong[:3]}, {len(watch.wrong)} in all")
            check(watch.times["victim"], "the victim was never asked")
            if roles_stay:
                now = tenants.daemon.pids()
                check(now == tenants.roles, f"roles of the daemon died: {tenants.roles} -> {now}")
            if took > limit * PATIENCE:
                raise Broken(f"took {took:.0f} s, {limit * PATIENCE} s were given")
            tenants.up()
            return f"{text}; {watch.text()}"
        return run
    return decorate
