"""Reload, upgrade and restart of the daemon under traffic of every kind: nobody is refused, reset, or gets half of an answer."""
import base64
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

import gitraw
from apps import app_files, static_files
from harness import BUILD, Repo, Spaced, app_processes, child_pids, cmdline, held_up, is_stopped, processes, wait_for
from proxyraw import Peer

APP = '''
import base64, hashlib, json, os, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
STARTED = time.time()

class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path.startswith("/slow"):  # 20 pieces a second
            count = int(self.path[5:] or 40)
            self.send_response(200)
            self.send_header("Content-Length", str(count * 1000))
            self.end_headers()
            for i in range(count):
                self.wfile.write(b"%03d," % i * 250)
                self.wfile.flush()
                time.sleep(0.05)
        elif self.path == "/ws":
            key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
            self.end_headers()
            while data := self.connection.recv(4096):
                self.connection.sendall(data)
        else:
            self.answer(str(STARTED).encode())

    def do_POST(self):
        self.answer(hashlib.sha1(self.rfile.read(int(self.headers["Content-Length"]))).hexdigest().encode())

    def log_message(self, *a):
        pass

class Server(ThreadingHTTPServer):
    request_queue_size = 128
Server(("0.0.0.0", int(os.environ["PORT"])), H).serve_forever()
'''
LARGE = os.urandom(1 << 20) * 8
SERVE = "the new proxies serve"
SLOW = b"".join(b"%03d," % i * 250 for i in range(40))


class Crowd:
    """Visitors of every kind. Each notes what it should not have met, by its kind."""

    def __init__(self, daemon, kinds=("fresh", "kept", "site", "apex", "post", "hidden", "file", "download", "upload", "socket")):
        self.daemon, self.kinds = daemon, kinds
        self.good = {kind: 0 for kind in kinds}
        self.wrong, self.started, self.closes = [], set(), 0
        self.over = threading.Event()
        self.token = daemon.token()
        self.threads = [threading.Thread(target=self.live, args=(kind,), daemon=True) for kind in kinds]

    def live(self, kind):
        visit = getattr(self, kind)
        while not self.over.is_set():
            try:
                visit()
            except (OSError, EOFError, AssertionError) as error:
                self.wrong.append(f"{kind}: {error!r}")
                time.sleep(0.05)

    def connect(self):
        peer = Peer(socket.create_connection(("127.0.0.1", self.daemon.port), 60))
        peer.sock.settimeout(60)
        return peer

    def ask(self, peer, host, path="/", *fields, method="GET", body=b""):
        head = [f"{method} {path} HTTP/1.1", f"Host: {host}", *fields, "", ""]
        peer.send("\r\n".join(head).encode() + body)
        m = peer.message()
        assert m.status == 200, f"{m.line} {m.body[:200]}"
        return m

    def app(self):
        return self.daemon.host("alice", "steady")

    def fresh(self):
        peer = self.connect()
        self.started.add(self.ask(peer, self.app()).body)
        peer.close()
        self.good["fresh"] += 1

    def keep(self, kind, host, *fields):
        """One connection for as long as the server lets it live: it is closed only after an answer that said so, or at the end
        of the daemon when nothing was said for a second (IDLE_LAST_MS), as may be where the machine is busy."""
        peer = self.connect()
        asked = time.monotonic()
        while not self.over.is_set():
            before, asked = asked, time.monotonic()
            try:
                m = self.ask(peer, host, "/", *fields)
            except (EOFError, ConnectionError):
                if time.monotonic() - before < 1:
                    raise
                break
            self.good[kind] += 1
            if m.get("connection") == "close":
                self.closes += 1
                assert peer.closed()
                break
            time.sleep(0.003)
        peer.close()

    def kept(self):
        self.keep("kept", self.app())

    def site(self):
        self.keep("site", self.daemon.host("alice", "site"))

    def apex(self):
        self.keep("apex", self.daemon.domain)

    def post(self):
        peer = self.connect()
        auth = f"Authorization: Bearer {self.token}"
        self.ask(peer, self.daemon.domain, "/api/whoami-v2", auth)
        peer.close()
        self.good["post"] += 1
        time.sleep(0.01)

    def hidden(self):
        peer = self.connect()
        auth = f"Authorization: Bearer {self.token}"
        assert self.ask(peer, self.daemon.host("alice", "hidden"), "/", auth).body == b"mine"
        peer.close()
        self.good["hidden"] += 1
        time.sleep(0.005)

    def download(self):
        peer = self.connect()
        assert self.ask(peer, self.app(), "/slow").body == SLOW
        self.good["download"] += 1
        peer.close()

    def file(self):
        """Of the static role, read slowly."""
        peer = self.connect()
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        peer.send(f"GET /large HTTP/1.1\r\nHost: {self.daemon.host('alice', 'site')}\r\n\r\n".encode())
        head, got = peer.message(head_only=True), b""
        assert head.status == 200, head.line
        while len(got) < len(LARGE):
            got += peer.exactly(min(256 * 1024, len(LARGE) - len(got)))
            time.sleep(0.05)
        assert got == LARGE
        self.good["file"] += 1
        peer.close()

    def upload(self):
        import hashlib
        body, peer = os.urandom(200_000), self.connect()
        peer.send(f"POST /up HTTP/1.1\r\nHost: {self.app()}\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        for at in range(0, len(body), 10_000):
            peer.send(body[at:at + 10_000])
            time.sleep(0.1)
        m = peer.message()
        assert m.status == 200 and m.body == hashlib.sha1(body).hexdigest().encode(), m.line
        self.good["upload"] += 1
        peer.close()

    def socket(self):
        """A WebSocket that says something all the time, for as long as the crowd is there."""
        peer = self.connect()
        peer.send((f"GET /ws HTTP/1.1\r\nHost: {self.app()}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                   "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode())
        assert peer.message(head_only=True).status == 101
        while not self.over.is_set():
            text = os.urandom(20)
            peer.send(text)
            assert peer.exactly(20) == text
            self.good["socket"] += 1
            time.sleep(0.02)
        peer.close()

    def more(self, n=5, timeout=60):
        """All have got something since now."""
        before = dict(self.good)
        wait_for(f"more for each: {before}", lambda: self.wrong or
                 all(self.good[k] >= before[k] + (1 if k in ("file", "download", "upload") else n) for k in self.kinds), timeout)

    def __enter__(self):
        for t in self.threads:
            t.start()
        self.more()
        return self

    def __exit__(self, kind, *rest):
        self.over.set()
        for t in self.threads:
            t.join(60)
        if not kind:
            assert not self.wrong, (self.wrong[:8], self.daemon.log_tail(60))


def deploy(daemon, tmp):
    files = {**app_files(), "app.py": APP}
    daemon.push_ok(Repo(tmp / "app", files=files), "alice", "steady")
    daemon.push_ok(Repo(tmp / "site", files={**static_files("files"), "large": LARGE}), "alice", "site")
    daemon.push_ok(Repo(tmp / "hidden", files=static_files("mine")), "alice", "hidden")
    daemon.spacectl("space", "visibility", "alice/hidden", "private", check=True)


def said(daemon, text, times=1):
    wait_for(f"{times} times in the log: {text}", lambda: daemon.log_path.read_text(errors="replace").count(text) >= times, 60)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("etc") / "spaced.conf"
    path.write_text("memory = 512M\n")
    return path


@pytest.fixture(scope="module")
def daemon(tmp_path_factory, config):
    """Its program is a copy, which can be exchanged."""
    folder = tmp_path_factory.mktemp("bin")
    folder.chmod(0o755)
    program = folder / "spaced"
    shutil.copy(BUILD / "spaced", program)
    d = Spaced(program=program, config=config, proxies=2)
    try:
        d.start()
        deploy(d, tmp_path_factory.mktemp("repos"))
        yield d
    finally:
        shutil.copy(BUILD / "spaced", program.with_suffix(".new"))
        program.with_suffix(".new").rename(program)
        d.close()


def upgrade(daemon):
    before, done = daemon.pids(), daemon.log_path.read_text(errors="replace").count(SERVE)
    code, out, err = daemon.spacectl("upgrade")
    assert code == 0 and "runs (before:" in out, (out, err, daemon.log_tail())
    said(daemon, SERVE, done + 1)
    assert not any(set(before[r]) & set(daemon.pids(r)) for r in ("control", "spawner"))
    return before


def settled(daemon):
    """No process of an earlier upgrade is left, and none is only about to become a role."""

    def alone():
        roles = daemon.pids()
        pids = sum(roles.values(), [])
        return len(pids) == 5 and len(roles["proxy"]) == 2 and set(pids) == set(child_pids(daemon.process.pid)) and roles

    return wait_for("the processes of before to end", alone)


def test_reload_under_traffic(daemon, config):
    with Crowd(daemon) as crowd:
        before = settled(daemon)
        for memory in ("256M", "300M", "320M"):
            config.write_text(f"memory = {memory}\n")
            done = daemon.log_path.read_text().count("reload: changed: memory")
            daemon.process.send_signal(signal.SIGHUP)
            said(daemon, "reload: changed: memory", done + 1)
            crowd.more()
        assert daemon.pids() == before and crowd.closes == 0
    assert len(crowd.started) == 1


def test_reload_says_what_it_does(daemon, config):
    config.write_text("memory = 384M\nbuilds = 3\nlog-level = debug\nid-base = 1879050240\nproxies = 1\n")
    code, out, _ = daemon.spacectl("reload")  # --proxies of the command line goes over the file
    assert code == 0 and out.strip() == ("changed: memory, builds; only an upgrade (SIGUSR2, spacectl upgrade) changes: "
                                         "log-level; only a new start changes: id-base")
    config.write_text("memory = much\n")
    code, out, err = daemon.spacectl("reload")
    assert code == 1 and "memory = `much`" in err and "stays as it is" in err, (out, err)
    config.write_text("memory = 384M\n")
    assert daemon.spacectl("reload")[0] == 0


def test_reload_is_in_force(daemon, config):
    """For the next start of an app, without a start of the daemon."""
    config.write_text("memory = 333M\n")
    assert daemon.spacectl("reload")[0] == 0
    old = set(app_processes("alice/steady"))
    daemon.spacectl("space", "restart", "alice/steady", check=True)
    wait_for("the new limit", lambda: "333" in daemon.spacectl("space", "show", "alice/steady")[1])
    wait_for("only the new app", lambda: (now := app_processes("alice/steady")) and not old & set(now))
    config.write_text("memory = 384M\n")
    assert daemon.spacectl("reload")[0] == 0


def test_upgrade_under_traffic(daemon):
    parent = daemon.process.pid
    with Crowd(daemon) as crowd:
        for _ in range(3):
            before = upgrade(daemon)
            crowd.more()
            for role in ("proxy", "static"):
                wait_for(f"the next {role}", lambda r=role, b=before: set(daemon.pids(r)) - set(b[r]))
        assert daemon.process.poll() is None and daemon.process.pid == parent
        wait_for("kept connections to move on to the new proxies", lambda: crowd.wrong or crowd.closes >= 3)
        wait_for("the WebSocket to say much", lambda: crowd.wrong or crowd.good["socket"] > 100)
    assert len(crowd.started) == 1, "the app was started again"
    settled(daemon)


@pytest.mark.parametrize("program", ["not there", "not a program", "fails", "hangs"])
def test_upgrade_to_what_cannot_start(daemon, program, tmp_path):
    shutil.copy(daemon.program, tmp_path / "good")
    bad = tmp_path / "bad"
    bad.write_text({"not a program": "nothing\n", "fails": "#!/bin/sh\necho it has no wheels >&2\nexit 3\n",
                    "hangs": "#!/bin/sh\nkill -STOP $$\n"}.get(program, ""))
    bad.chmod(0o755)
    before, log = settled(daemon), len(daemon.log_path.read_text())
    daemon.program.unlink()
    if program != "not there":
        shutil.copy(bad, daemon.program)
    try:
        if program == "hangs":
            daemon.process.send_signal(signal.SIGUSR2)
            wait_for("the check", lambda: processes(str(daemon.program), "--check"))
            code, _, err = daemon.spacectl("upgrade")
            assert code == 1 and "under way" in err
            for pid in processes(str(daemon.program), "--check"):
                os.kill(pid, signal.SIGKILL)
            wait_for("its end", lambda: "did not say why it cannot start; all stays" in daemon.log_path.read_text()[log:])
        else:
            code, out, err = daemon.spacectl("upgrade")
            assert code == 1 and {"fails": "no wheels", "not there": "No such file", "not a program": "Exec format"}[program] \
                in err, (out, err)
        assert daemon.pids() == before and daemon.get("alice", "steady").status == 200
    finally:
        daemon.program.unlink(missing_ok=True)
        shutil.copy(tmp_path / "good", daemon.program)
    upgrade(daemon)


def test_upgrade_with_what_cannot_change(daemon, config):
    before = settled(daemon)
    for text, why in (("nonsense = 1\n", "no option `nonsense`"), ("user = nobody\n", "user = `nobody`"),
                      ("memory = x\n", "memory = `x`")):
        config.write_text(text)
        code, _, err = daemon.spacectl("upgrade")
        assert code == 1 and why in err, err
    config.write_text("memory = 384M\n")
    assert daemon.pids() == before and daemon.get("alice", "steady").status == 200


def test_check_by_hand(tmp_path):
    """Without a daemon, and as the one that runs asks for it."""

    def check(*args, **env):
        return subprocess.run([BUILD / "spaced", "--state", tmp_path / "none", *args, "--check"], capture_output=True, text=True,
                              env={**os.environ, **env}, timeout=60)

    assert check().returncode == 0 and not (tmp_path / "none").exists()
    bad = check("--memory", "much")
    assert bad.returncode == 2 and "memory = `much`" in bad.stderr
    older = check(SPACED_SCHEMA="9999")
    assert older.returncode == 1 and "schema 9999, this one knows only" in older.stderr
    assert check(SPACED_SCHEMA="1").returncode == 0


def test_what_outlives_the_drain_is_closed(start_spaced, repo):
    """A WebSocket that never ends does not keep the proxy of before for ever."""
    daemon = start_spaced(drain_timeout="4s")
    daemon.push_ok(repo(files={**app_files(), "app.py": APP}), "alice", "steady")
    with Crowd(daemon, ("fresh", "kept")) as crowd:
        peer = crowd.connect()
        peer.send((f"GET /ws HTTP/1.1\r\nHost: {crowd.app()}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                   "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode())
        assert peer.message(head_only=True).status == 101
        since = time.monotonic()
        before = set(upgrade(daemon)["proxy"])
        assert peer.closed() and time.monotonic() - since >= 4
        wait_for("the proxies of before to end", lambda: not before & set(daemon.pids("proxy")))
        crowd.more()


def test_upgrade_right_after_a_deploy(daemon, tmp_path):
    """What is in flight to the version before is answered by it to its end."""
    work = Repo(tmp_path / "app", files={**app_files(), "app.py": APP})
    daemon.push_ok(work, "alice", "deployed")
    peer = Peer(socket.create_connection(("127.0.0.1", daemon.port)))
    peer.send(f"GET /slow200 HTTP/1.1\r\nHost: {daemon.host('alice', 'deployed')}\r\n\r\n".encode())
    head = peer.message(head_only=True)
    assert head.status == 200
    work.commit("second", {"app.py": APP.replace("str(STARTED).encode()", "b'second'")})
    daemon.push_ok(work, "alice", "deployed")
    assert daemon.get("alice", "deployed").text == "second"
    upgrade(daemon)
    assert daemon.get("alice", "deployed").text == "second"
    assert peer.exactly(200_000).endswith(b"199," * 250)


def test_pushes_across_upgrades(daemon, tmp_path):
    """Each is accepted, or told that nothing was changed and when to come again."""
    over, accepted, odd = threading.Event(), [], []

    def pusher(n):
        i = 0
        while not over.is_set():
            i += 1
            work, name = Repo(tmp_path / f"r{n}-{i}", files=static_files(f"{n}-{i}")), f"storm-{n}-{i}"
            done = daemon.push(work, "alice", name, "main", "-o", "nowait")
            if "main -> main" in done.stdout:
                accepted.append((name, work))
            elif "push again in a few seconds" not in done.stdout:
                odd.append(done.stdout)

    threads = [threading.Thread(target=pusher, args=(n,)) for n in range(2)]
    for t in threads:
        t.start()
    for i in range(3):
        wait_for("some pushes", lambda i=i: len(accepted) > 3 * i or odd, 60)
        upgrade(daemon)
    over.set()
    for t in threads:
        t.join()
    assert not odd, odd[0]
    for name, work in accepted:
        assert work.git("ls-remote", daemon.remote("alice", name), "refs/heads/main").split()[0] == work.head(), name
        daemon.wait_stage("alice", name, "RUNNING", 60)


def test_a_slow_push_is_waited_for(daemon, tmp_path):
    pack = gitraw.Pack()
    tree = pack.add("tree", gitraw.tree(("100644", "x", pack.add("blob", os.urandom(300_000)))))
    tip = pack.add("commit", gitraw.commit(tree))
    body = gitraw.pkt(f"{gitraw.ZERO} {tip} refs/heads/other\0{gitraw.CAPS}\n".encode()) + b"0000" + pack.bytes()
    auth = base64.b64encode(f"x:{daemon.token()}".encode()).decode()
    peer = Peer(socket.create_connection(("127.0.0.1", daemon.port)))
    peer.send((f"POST /spaces/alice/steady/git-receive-pack HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {auth}\r\n"
               "Content-Type: application/x-git-receive-pack-request\r\n"
               f"Content-Length: {len(body)}\r\n\r\n").encode() + body[:100_000])
    before = daemon.pids("control")
    wait_for("its child", lambda: [pid for pid in child_pids(before[0]) if "unpack" in cmdline(pid)])
    taken_over = daemon.log_path.read_text().count("takes over from")
    daemon.process.send_signal(signal.SIGUSR2)
    late = Repo(tmp_path / "late", files=static_files("n"))

    def refused():
        late.commit("one more")
        done = daemon.push(late, "alice", "late")
        return done.returncode and done.stdout

    assert "push again in a few seconds" in wait_for("a push that is refused", refused)
    assert daemon.request("GET", "/healthz").status == 200 and daemon.pids("control") == before
    peer.send(body[100_000:])
    answer = peer.message()
    assert answer.status == 200 and b"unpack ok" in answer.body and b"ok refs/heads/other" in answer.body, answer.body
    wait_for("the next control", lambda: not set(daemon.pids("control")) & set(before))
    said(daemon, "takes over from", taken_over + 1)
    shown = subprocess.run(["git", "ls-remote", daemon.remote("alice", "steady"), "refs/heads/other"], capture_output=True,
                           text=True, check=True, env=Repo(tmp_path / "e", files={}).env).stdout
    assert shown.split()[0] == tip


def test_a_push_that_follows_its_build(daemon, tmp_path):
    """It is told that this goes on without it."""
    setup = "import subprocess, setuptools\nsubprocess.run(['sleep', '3601'])\nsetuptools.setup(name='pkg')\n"
    work = Repo(tmp_path / "r", files={**app_files("built"), "requirements.txt": "./pkg\n", "pkg/setup.py": setup})
    done = []
    pusher = threading.Thread(target=lambda: done.append(daemon.push(work, "alice", "follower")))
    pusher.start()

    def steps():  # of the build that we let end
        return [pid for pid in processes("sleep", "3601") if cmdline(pid) == ["sleep", "3601"]]

    wait_for("the build", steps)
    upgrade(daemon)
    pusher.join(120)
    wait_for("the build that was taken up again", steps)

    def ends():
        for pid in steps():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return daemon.stage("alice", "follower") == "RUNNING"

    assert done[0].returncode == 0 and "The push is stored" in done[0].stdout, done[0].stdout
    wait_for("it to run", ends, 120)


def test_held_socket_across_restarts(tmp_path):
    """As with spaced.socket: nobody is refused while there is no daemon, and who was being served is served to the end."""
    daemon = Spaced(held=True)
    try:
        daemon.start()
        deploy(daemon, tmp_path)
        with Crowd(daemon, ("fresh", "kept", "site", "apex", "post", "hidden", "file", "download", "upload")) as crowd:
            for _ in range(3):
                assert daemon.stop() == 0
                daemon.start(timeout=60)
                crowd.more()
        assert len(crowd.started) == 1
    finally:
        daemon.close()


def test_held_socket_that_does_not_fit(tmp_path):
    daemon = Spaced(held=True)
    daemon.port += 1
    try:
        with pytest.raises(AssertionError, match="listens elsewhere"):
            daemon.start()
    finally:
        daemon.process = None
        daemon.close()


def test_crash_of_all_proxies_keeps_the_queue(daemon):
    pids = settled(daemon)["proxy"]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    wait_for("them to stop", lambda: all(map(is_stopped, pids)))
    peers = [Peer(socket.create_connection(("127.0.0.1", daemon.port))) for _ in range(10)]
    for peer in peers:
        peer.send(f"GET / HTTP/1.1\r\nHost: {daemon.host('alice', 'steady')}\r\n\r\n".encode())
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert all(peer.message().status == 200 for peer in peers)


SYS_pidfd_getfd = 438
PROXY_LOST = 160
TO_PARENT, TO_CONTROL = 3, 6  # descriptors of a proxy (role.h)


def said_by(pid, fd, frame_type):
    """A frame as if that process had sent it."""
    pidfd = os.pidfd_open(pid)
    fd = ctypes.CDLL(None, use_errno=True).syscall(SYS_pidfd_getfd, pidfd, fd, 0)
    os.close(pidfd)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    with socket.socket(fileno=fd) as channel:
        channel.send(struct.pack("=4I", 0x53504344, frame_type, 0, 0))


@pytest.mark.skipif(os.geteuid() != 0, reason="takes a descriptor of another process")
@pytest.mark.parametrize("whose", ["control", "proxy"])
def test_a_proxy_and_control_that_do_not_understand_each_other(daemon, tmp_path, whose):
    """Another proxy takes its place, with all routes; who is served by the one before does not notice."""
    before = set(settled(daemon)["proxy"])
    with Crowd(daemon) as crowd:
        served = daemon.log_path.read_text(errors="replace").count(SERVE)
        for pid in before:  # to control: a frame that it does not know; by the proxy's own word: control sent one
            said_by(pid, *((TO_CONTROL, 99) if whose == "control" else (TO_PARENT, PROXY_LOST)))
        wait_for("two others", lambda: len(set(daemon.pids("proxy")) - before) == 2, 60)
        said(daemon, SERVE, served + 1)
        crowd.more()
        daemon.push_ok(Repo(tmp_path / "fresh", files=static_files(whose)), "alice", f"fresh-{whose}")
        for _ in range(20):  # whichever proxy takes it
            assert daemon.get("alice", f"fresh-{whose}").text == whose
        crowd.more()
    wait_for("those of before to end", lambda: not set(daemon.pids("proxy")) & before, 60)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes a descriptor of another process")
def test_requests_that_a_replaced_proxy_holds(daemon, tmp_path):
    """They wait there for an app that starts only after control has given it up."""
    daemon.push_ok(Repo(tmp_path / "app", files={**app_files(), "app.py": APP}), "alice", "slow")
    daemon.spacectl("space", "sleep", "alice/slow", check=True)
    daemon.wait_stage("alice", "slow", "SLEEPING")
    peers = [Peer(socket.create_connection(("127.0.0.1", daemon.port))) for _ in range(10)]
    with held_up(daemon):
        for peer in peers:
            peer.send(f"GET / HTTP/1.1\r\nHost: {daemon.host('alice', 'slow')}\r\n\r\n".encode())
        wait_for("it to start", lambda: daemon.told("alice", "slow")["stage"] == "APP_STARTING")
        for pid in settled(daemon)["proxy"]:
            said_by(pid, TO_CONTROL, 99)
    assert [peer.message().status for peer in peers] == [200] * 10
