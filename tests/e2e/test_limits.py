"""An app that takes too much is stopped at its limit and says so; the others and the daemon do not notice."""
import pytest

from apps import app_files, server
from harness import wait_for


@pytest.fixture(scope="module")
def small():
    from harness import Spaced
    daemon = Spaced(memory="128M", pids="48", disk="24M", cpus="0.5", log_size="64K",
                    build_disk="64M", startup_timeout="120s")
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


def push_app(daemon, repo, name, body):
    daemon.push_ok(repo(files=app_files(body=body)), "alice", name)
    return daemon


def test_memory(small, repo):
    push_app(small, repo, "memory", "b'up' if self.path == '/' else bytes(len(bytearray(os.urandom(1) * (512 << 20))))")
    push_app(small, repo, "neighbour", "b'calm'")
    assert small.get("alice", "memory").text == "up"
    answer = small.get("alice", "memory", "/eat", timeout=60)
    assert answer.status in (502, 503), answer.status
    assert small.get("alice", "neighbour").text == "calm"
    wait_for("the reason", lambda: "killed: used 128 MiB of 128 MiB" in small.log_path.read_text())
    assert small.get_ok("alice", "memory").text == "up", "it is started again"


def test_processes(small, repo):
    code = server(body="spawn() if self.path != '/' else b'up'").replace("KEEP = []", '''
def spawn():
    n = 0
    try:
        while n < 500:
            os.posix_spawnp("sleep", ["sleep", "100"], os.environ)
            n += 1
    except OSError:
        pass
    return str(n).encode()
''')
    small.push_ok(repo(files={"Procfile": "web: python3 app.py\n", "app.py": code}), "alice", "pids")
    started = int(small.get("alice", "pids", "/spawn", timeout=60).text)
    assert 5 < started < 48, started


def test_disk(small, repo):
    code = server(body="fill() if self.path != '/' else b'up'").replace("KEEP = []", '''
def fill():
    n = 0
    try:
        with open("/app/big", "wb") as f:
            while n < 400 << 20:
                f.write(bytes(1 << 20)); f.flush(); os.fsync(f.fileno()); n += 1 << 20
    except OSError as e:
        return json.dumps([e.strerror, n >> 20]).encode()
    return json.dumps(["no limit", n >> 20]).encode()
''')
    small.push_ok(repo(files={"Procfile": "web: python3 app.py\n", "app.py": code}), "alice", "disk")
    why, written = small.get("alice", "disk", "/fill", timeout=100).json()
    assert why in ("No space left on device", "Disk quota exceeded"), why
    assert written < 64
    assert small.get("alice", "disk").text == "up"


def test_log(small, repo):
    push_app(small, repo, "noisy", "b'up' if self.path == '/' else [print('x' * 1000) for _ in range(2000)] and b'done'")
    assert small.get("alice", "noisy", "/noise", timeout=60).text == "done"
    assert small.get("alice", "noisy").text == "up"
    assert len(small.logs("alice", "noisy")) < 300_000


def test_time_of_a_build(start_spaced, repo):
    daemon = start_spaced(build_timeout="3s")
    files = {"README.md": "---\nsdk: static\napp_build_command: sleep 300\n---\n", "index.html": "x"}
    out = daemon.push(repo(files=files), "alice", "slow").stdout
    assert daemon.stage("alice", "slow") == "BUILD_ERROR", out
    assert "took longer than 3 s" in out, out


def test_disk_of_a_build(small, repo):
    files = {"README.md": "---\nsdk: static\napp_build_command: head -c 300M /dev/zero > big\n---\n", "index.html": "x"}
    out = small.push(repo(files=files), "alice", "fat").stdout
    assert small.stage("alice", "fat") == "BUILD_ERROR", out
    assert "space" in out.lower() or "disk" in out.lower(), out


def test_no_way_to_host_or_neighbours(small, repo):
    """An app has loopback of its own and no route to the host's services or to another Space."""
    push_app(small, repo, "target", "b'target'")
    code = server(body="probe()").replace("KEEP = []", f'''
import socket
def probe():
    seen = {{}}
    gateway = None
    for line in open("/proc/net/route").read().splitlines()[1:]:
        f = line.split()
        if f[1] == "00000000":
            gateway = socket.inet_ntoa(bytes.fromhex(f[2])[::-1])
    for host, port in [("127.0.0.1", {small.port}), (gateway, {small.port}), (gateway, 22), ("169.254.169.254", 80)]:
        if host is None:
            continue
        try:
            socket.create_connection((host, port), 2).close()
            seen[f"{{host}}:{{port}}"] = "connected"
        except OSError as e:
            seen[f"{{host}}:{{port}}"] = e.__class__.__name__
    return json.dumps(seen).encode()
''')
    small.push_ok(repo(files={"Procfile": "web: python3 app.py\n", "app.py": code}), "alice", "prober")
    seen = small.get("alice", "prober", timeout=60).json()
    assert seen and "connected" not in seen.values(), seen


def test_inside_is_confined(small, repo):
    code = server(body="look()").replace("KEEP = []", '''
def look():
    status = dict(l.split(":\\t", 1) for l in open("/proc/self/status").read().splitlines() if ":\\t" in l)
    def can(f):
        try: f(); return True
        except OSError: return False
    return json.dumps({"caps": [status[k] for k in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")],
        "nnp": status["NoNewPrivs"], "seccomp": status["Seccomp"], "pids": [p for p in os.listdir("/proc") if p.isdigit()],
        "shadow": can(lambda: open("/etc/shadow").read()), "usr": can(lambda: open("/usr/x", "w")),
        "unshare": can(lambda: os.unshare(0x10000000)) if hasattr(os, "unshare") else False,
        "sys": can(lambda: os.listdir("/sys/kernel"))}).encode()
''')
    small.push_ok(repo(files={"Procfile": "web: exec python3 app.py\n", "app.py": code}), "alice", "confined")
    seen = small.get("alice", "confined").json()
    assert all(int(c, 16) == 0 for c in seen["caps"]), seen
    assert seen["nnp"] == "1" and seen["seccomp"] == "2"
    assert len(seen["pids"]) <= 4, seen["pids"]
    assert not seen["shadow"] and not seen["usr"] and not seen["unshare"] and not seen["sys"], seen
