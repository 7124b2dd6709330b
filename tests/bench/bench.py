"""The benches behind `make bench`. Each row is the median of interleaved runs; see the table's own words for the reference."""
import http.client
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
from apps import app_files, static_files  # noqa: E402
from harness import Repo, Spaced, free_port, git_env  # noqa: E402
from backend import HttpBackend  # noqa: E402
from bigrepo import make_big_repository  # noqa: E402


def table(title, rows, unit="ms"):
    """rows: (name, samples in seconds, is it the reference?)"""
    reference = next((statistics.median(samples) for _, samples, is_reference in rows if is_reference), None)
    print(f"\n{title}")
    print(f"  {'':44} {'median':>9} {'min':>9} {'max':>9}   ratio")
    for name, samples, _ in rows:
        scale = 1000 if unit == "ms" else 1
        median = statistics.median(samples)
        ratio = f"{median / reference:7.2f}" if reference else ""
        print(f"  {name:44} {median * scale:7.1f} {unit} {min(samples) * scale:6.1f} {unit} {max(samples) * scale:6.1f} {unit} {ratio}")
    sys.stdout.flush()


def first_200(port, host, text, deadline=60):
    """Asks until the answer is there and is the new one."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/", headers={"Host": host})
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            if answer.status == 200 and text in body:
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.002)
    raise SystemExit(f"bench: no answer with {text!r} within {deadline} s")


def push_in_background(daemon, work, name):
    return subprocess.Popen(["git", "push", "-q", daemon.remote("alice", name), "main"], cwd=work.path, env=work.env,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def pushed_to_200(daemon, work, name, text):
    started = time.monotonic()
    push = push_in_background(daemon, work, name)
    first_200(daemon.port, daemon.host("alice", name), text.encode())
    took = time.monotonic() - started
    push.wait()
    return took


def bare_push(work, bare):
    """git's own floor: the same push to a bare repository on the same disk, without any server."""
    started = time.monotonic()
    subprocess.run(["git", "push", "-q", str(bare), "main"], cwd=work.path, env=work.env, check=True)
    return time.monotonic() - started


def bench_static(daemon, home, runs=15):
    work = Repo(home / "site", files=static_files("version 0"))
    bare = home / "site.git"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True, env=git_env(home))
    pushed_to_200(daemon, work, "bench-static", "version 0")
    ours, floor = [], []
    for i in range(1, runs + 1):
        work.commit(f"{i}", {"index.html": f"version {i};"})
        floor.append(bare_push(work, bare))
        ours.append(pushed_to_200(daemon, work, "bench-static", f"version {i};"))
    table("static Space: git push started -> first 200 with the new page",
          [("git push to a bare repository on this disk", floor, True), ("Spaced, pushed, deployed and served", ours, False)])


def bench_python(daemon, home, runs=9):
    """Warm layers: only code changes. The reference is the same app with the same dependencies started by hand."""
    files = {**app_files("version 0"), "requirements.txt": "itsdangerous==2.2.0\n"}
    work = Repo(home / "app", files=files)
    environment = home / "venv"
    subprocess.run(["/usr/bin/python3", "-m", "venv", str(environment)], check=True)
    pushed_to_200(daemon, work, "bench-python", "version 0")
    ours, floor = [], []
    for i in range(1, runs + 1):
        work.commit(f"{i}", {"app.py": app_files(f"version {i};")["app.py"]})
        port = free_port()
        started = time.monotonic()
        app = subprocess.Popen([str(environment / "bin" / "python3"), "app.py"], cwd=work.path,
                               env={**os.environ, "PORT": str(port)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        first_200(port, "localhost", f"version {i};".encode())
        floor.append(time.monotonic() - started)
        app.kill()
        app.wait()
        ours.append(pushed_to_200(daemon, work, "bench-python", f"version {i};"))
    table("Python Space, warm layers: git push started -> first 200 from the new code",
          [("the same app started by hand, outside", floor, True), ("Spaced, pushed, built, sandboxed and switched", ours, False)])


def bench_receive(daemon, home, runs=3):
    work, size, objects = make_big_repository(home / "big")
    print(f"\nreceive: {objects} objects, {size / 1e6:.0f} MB pack (generated history of text and binary files)")
    samples = {"git http-backend (fsckObjects off: its default)": [], "git http-backend, fsckObjects on": [], "Spaced": []}
    for i in range(runs):
        for name, seconds in samples.items():
            if name == "Spaced":
                target = daemon.remote("alice", f"bench-big{i}")
                options = ["-o", "nowait"]
                backend = None
            else:
                backend = HttpBackend(home / f"backend-{i}-{len(seconds)}-{'on' in name.split()}", fsck="fsckObjects on" in name)
                target, options = backend.url, []
            started = time.monotonic()
            done = subprocess.run(["git", "push", "-q", *options, target, "main"], cwd=work, env=git_env(home),
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            took = time.monotonic() - started
            if backend:
                backend.close()
            if done.returncode:
                raise SystemExit(f"bench: push to {name} failed:\n{done.stdout}")
            seconds.append(took)
    names = list(samples)
    table("receive of that repository: whole `git push` (reading and compressing on the client's side included)",
          [(name, samples[name], name == names[0]) for name in names], unit="s ")


BENCHES = {"static": bench_static, "python": bench_python, "receive": bench_receive}


def main():
    wanted = sys.argv[1:] or list(BENCHES)
    for name in wanted:
        if name not in BENCHES:
            raise SystemExit(f"bench: {name} is none of {', '.join(BENCHES)}")
    daemon = Spaced(log_level="warn")
    with tempfile.TemporaryDirectory(prefix="spaced-bench-", dir="/var/tmp") as home:
        try:
            daemon.start()
            for name in wanted:
                BENCHES[name](daemon, Path(home))
        finally:
            daemon.close()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
