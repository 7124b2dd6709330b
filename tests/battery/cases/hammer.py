"""G11 to G13: slow peers on both sides of the proxy, builds that do not want to end, and everything at once."""
import contextlib
import json
import os
import pathlib
import random
import socket
import threading
import time

from rig.host import descendants
from rig.tenants import check, watched

SLOW = 40  # peers of each kind
PROXY_KIB = 64 << 10  # that the proxies may grow by, all buffers of all slow peers together


def memory_kib(pids):
    total = 0
    for pid in pids:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def dial(tenants, text):
    s = socket.create_connection(("127.0.0.1", tenants.daemon.port), timeout=10)
    s.sendall(text)
    return s


@watched(60)
def slow(tenants, case):
    """All of them at the same time for six seconds; none reads what it is sent nor ends what it has begun."""
    host = tenants.daemon.host("alice", "attacker").encode()
    proxies = tenants.daemon.pids("proxy")
    before = memory_kib(proxies)
    peers, drips = [], []
    try:
        for _ in range(SLOW):
            drips.append(dial(tenants, b"GET / HTTP/1.1\r\nHost: " + host + b"\r\nX-Slow: "))
            peers.append(dial(tenants, b"GET /endless HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"))
            peers.append(dial(tenants, b"GET /drip HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"))
        for _ in range(SLOW // 4):  # an upload that the app does not read
            s = dial(tenants, b"PUT / HTTP/1.1\r\nHost: " + host + b"\r\nContent-Length: 100000000\r\n\r\n")
            s.setblocking(False)
            peers.append(s)
        sent, most, end = 0, 0, time.monotonic() + 6
        while time.monotonic() < end:
            for s in drips:
                with contextlib.suppress(ConnectionError):  # the proxy has waited for its head long enough
                    s.send(b"x")
            for s in peers[-SLOW // 4:]:
                with contextlib.suppress(BlockingIOError):
                    sent += s.send(bytes(1 << 20))
            most = max(most, memory_kib(proxies) - before)
            time.sleep(0.2)
        check(most < PROXY_KIB, f"the proxies have grown by {most >> 10} MiB")
        check(sent < 256 << 20, f"{sent >> 20} MiB of uploads that nobody reads went somewhere")
    finally:
        for s in peers + drips:
            s.close()
    tenants.restart()
    return f"{len(peers) + len(drips)} slow peers, proxies grew by {most} KiB, {sent >> 10} KiB of uploads on the way"


BUILDS = {
    "endless": "while :; do :; done",
    "huge": "head -c 400M /dev/zero > big",
    "many": "mkdir m && cd m && seq 200000 | xargs touch",
    "left": "(setsid sleep 31457 & setsid sh -c 'trap \"\" TERM HUP; sleep 31457' &) ; touch done",
}
WORDS = {"endless": ("time",), "huge": ("space", "disk"), "many": ("space", "disk"), "left": ("",)}


@watched(90)
def builds(tenants, case):
    """Each as a Space of its own, all at the same time."""
    from harness import Repo, processes, wait_for
    daemon = tenants.daemon
    daemon.token()
    volumes = set(os.listdir(daemon.state / "volumes"))
    said = {}

    def push(name):
        repo = Repo(pathlib.Path(tenants.battery.work, f"build-{name}", "repo"), files={
            "README.md": f"---\nsdk: static\napp_build_command: {json.dumps(BUILDS[name])}\n---\n", "index.html": name})
        said[name] = daemon.push(repo, "alice", f"build-{name}", timeout=300).stdout
    threads = [threading.Thread(target=push, args=(name,)) for name in BUILDS]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for name, words in WORDS.items():
        for _ in range(2):  # beside the others it may not have come to its limit in time
            if not any(w in said[name].lower() for w in words):
                push(name)
        check(any(w in said[name].lower() for w in words), f"{name}: no reason: {said[name][-300:]}")
        daemon.wait_stage("alice", f"build-{name}", "RUNNING" if name == "left" else "BUILD_ERROR")
    wait_for("the processes of the builds to be gone", lambda: not processes("sleep", "31457"))
    for name in BUILDS:
        daemon.spacectl("space", "delete", f"alice/build-{name}", check=True)

    def scratch():
        return {v for v in set(os.listdir(daemon.state / "volumes")) - volumes if "layer" not in v}
    wait_for("the workspaces to be gone", lambda: not scratch())
    return f"{len(BUILDS)} kinds of builds: ended, processes and workspaces gone"


@watched(90)
def hammer(tenants, case):
    """Restart, pause and push of one Space by eight at once for six seconds; then exactly one instance of it is there."""
    from harness import Repo, wait_for
    daemon = tenants.daemon
    token = daemon.token()
    repo = Repo(pathlib.Path(tenants.battery.work, "hammer", "repo"), files={
        "Procfile": "web: exec python3 -m http.server $PORT\n", "index.html": "0"})
    daemon.push_ok(repo, "alice", "hammer")
    calls, wrong, end = [0] * 8, [], time.monotonic() + 6

    def caller(n):
        rng = random.Random(n)
        while time.monotonic() < end:
            verb = rng.choice(["restart", "restart", "pause"])
            answer = daemon.request("POST", f"/api/spaces/alice/hammer/{verb}",
                                    headers={"Authorization": f"Bearer {token}"}, timeout=30)
            calls[n] += 1
            if answer.status not in (200, 409, 429, 503):
                wrong.append(f"{verb}: {answer.status} {answer.text[:100]}")

    def pusher():
        n = 0
        while time.monotonic() < end:
            n += 1
            repo.commit(f"push {n}", {"index.html": str(n)})
            daemon.push(repo, "alice", "hammer", "main", "-o", "nowait")
        calls.append(n)
    threads = [threading.Thread(target=caller, args=(n,)) for n in range(8)] + [threading.Thread(target=pusher)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    check(not wrong, f"answers under the hammer: {wrong[:3]}")
    daemon.spacectl("space", "restart", "alice/hammer", check=True)
    daemon.wait_stage("alice", "hammer", "RUNNING", 60)
    space = daemon.show("alice", "hammer")["_id"]

    def one():
        groups = {pathlib.Path(g).name for g in tenants.group_dirs()}
        return len([g for g in groups if g.startswith(f"app-{space}-")]) == 1 and len(daemon.monitors(space)) == 1
    wait_for("one instance and no more", one)
    daemon.spacectl("space", "delete", "alice/hammer", check=True)
    wait_for("nothing of it", lambda: not daemon.monitors(space) and not any(
        space in g for g in tenants.group_dirs()))
    wait_for("no build to be left", lambda: "mkfs.ext4" not in descendants(daemon.process.pid).values())
    return f"{sum(calls[:8])} calls and {calls[-1]} pushes in 6 s, one instance at the end, none after it was deleted"
