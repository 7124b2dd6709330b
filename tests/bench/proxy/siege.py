"""tests/bench/proxy: what a Space's visitors feel while another Space of the same proxy is attacked: p99 of 1000 requests a second on 64
connections, by calm. The goal is at most 2.

Attack, backends and visitors share the CPU that the proxy does not have, and what the attack takes of it is no proxy's doing. So visitors and
their backend go before all others there (SCHED_FIFO, and they sleep between requests); the attack and the attacked app come last, at a rate
that is stated where it is bounded; and each attack is made twice, on the proxy and, past it, on the attacked app itself. In each round, in turn:

  calm       no attack
  past       the visitors through the proxy while the attack goes to the app itself: what it costs on this machine anyhow
  attacked   the visitors through the proxy while the attack goes through it too

The attackers have addresses that count, and all limits are as they are by default. Columns of a proxy: attacked by calm, attacked by past (each
medians of the rounds), and of the attack's connections each second, how many were answered well and how many were refused (slowhttptest does
not say). BENCH_SHOW=1 shows the p99 of each.

  BENCH_ROUNDS=5 BENCH_SECONDS=2 BENCH_NICE=-15 tests/bench/proxy/siege.py [ATTACK]..."""
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from servers import BUILD, LOAD_CPU, Server, available, free_port, on_cpu, pinned, running, settle_in, wait_port

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))
RATE = 1000
PROGRAMS = BUILD / "tests/bench/proxy"
ATTACKED = "10.1.0.1"  # of the network namespace: 10.1.0.0/24 are its own addresses
FIRST, BEHIND = ["chrt", "--fifo", "1"], ["nice", "-n", "10"]


def slow(*words, connections=1000, page=""):
    """slowhttptest, 1000 new connections a second and then a piece each second on each."""
    return lambda port: ["slowhttptest", *words, "-c", connections, "-r", 1000, "-i", 1, "-l", 3600, "-x", 16, "-p", 5, "-v", 0, "-u",
                         f"http://{ATTACKED}:{port}/{page}"]


def attack(mode, connections, rate, addresses):
    return lambda port: [PROGRAMS / "attack", ATTACKED, port, mode, connections, rate, "10.1.0.2", addresses]


# name, its program, connections to wait for before the visitors come
ATTACKS = {
    "slow heads": (slow("-H"), 900),
    "slow bodies": (slow("-B"), 900),
    "ranges": (slow("-R", connections=60000), 1),  # answered at once, so one after the other
    "slow reading": (slow("-X", "-w", 1, "-y", 2, "-z", 1, "-n", 1, page="big"), 900),
    "10,000 idle, 5,000/s come": (attack("idle", 10000, 5000, 16), 1),
    "10,000 idle, all there": (attack("idle", 10000, 0, 16), 9900),
    "10,000 idle, of one address": (attack("idle", 10000, 5000, 1), 1),
    "connections, 3,000/s": (attack("flood", 2000, 3000, 16), 1),
    "connections, without bound": (attack("flood", 256, 0, 16), 1),
    "heads of 200 kB, 500/s": (attack("heads", 500, 500, 16), 1),
    "heads of 200 kB, without bound": (attack("heads", 256, 0, 16), 1),
}


def p99(port):
    done = subprocess.run([*pinned(LOAD_CPU), *FIRST, PROGRAMS / "load", str(port), "rate", "64", str(SECONDS), str(RATE)],
                          stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "LOAD_FROM": "127.0.0.2"})
    answer = json.loads(done.stdout)
    if answer["failed"]:
        raise SystemExit(f"bench: {answer['failed']} of {answer['done']} visitors failed")
    # requests that were due and never sent, because no connection was free, have waited as long as we looked
    return answer["p99"] if answer["done"] >= 0.99 * RATE * SECONDS else max(answer["p99"], SECONDS * 1e6)


class Attack:
    """Under way as long as the `with` lasts: on `port`, where a server listens."""

    def __init__(self, name, port):
        self.name, self.port = name, port
        self.process = None

    def __enter__(self):
        words, want = ATTACKS[self.name]
        self.process = on_cpu(LOAD_CPU, *BEHIND, *words(self.port), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.began = time.monotonic()
        while self.standing() < want:
            if time.monotonic() > self.began + 20 or self.process.poll() is not None:
                raise SystemExit(f"bench: {self.name}: no attack came about")
            time.sleep(0.02)
        return self

    def standing(self):
        count = subprocess.run(["ss", "-Hatn", "dst", f"{ATTACKED}:{self.port}"], capture_output=True, text=True, check=True)
        return len(count.stdout.splitlines())

    def __exit__(self, *_):
        """What came of it, as its last whole line says: connections that were served and refused, each second."""
        running.remove(self.process)
        self.process.kill()
        lines = re.findall(r"^(\d+) (\d+) (\d+)$", self.process.communicate()[0], re.MULTILINE)
        self.served, self.refused = (int(n) / len(lines) for n in lines[-1][1:]) if lines else (None, None)


def attacked(name, port, visitors):
    with Attack(name, port) as attack:
        return p99(visitors), attack


def settle(*ports):
    """Until nobody of the attack is left, so that the next measure is not of its end."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        where = " or ".join(f"sport = :{port}" for port in ports)
        count = subprocess.run(["ss", "-Htn", "state", "connected", "exclude", "time-wait", where], capture_output=True, text=True, check=True)
        if not [line for line in count.stdout.splitlines() if ATTACKED in line]:
            return
        time.sleep(0.05)
    raise SystemExit("bench: an attack does not end")


class Siege:
    def __init__(self, folder):
        self.folder = folder
        self.backend, self.app = free_port(), free_port()
        wait_port(self.backend, on_cpu(LOAD_CPU, *FIRST, PROGRAMS / "backend", self.backend))
        self.names = [n for n in available() if n in ("ours", "nginx", "haproxy")]

    def row(self, name, server_name):
        """Medians: p99 when calm, past it and attacked; served and refused a second."""
        where = self.folder / re.sub(r"\W", "-", f"{name}-{server_name}")
        where.mkdir()
        app = on_cpu(LOAD_CPU, *BEHIND, PROGRAMS / "backend", self.app, "0.0.0.0")
        wait_port(self.app, app)
        server = Server(server_name, where, self.backend, other=(ATTACKED, self.app), before=FIRST)
        got = []
        for _ in range(ROUNDS):
            calm = p99(server.port)
            past, _ = attacked(name, self.app, server.port)
            settle(self.app)
            under, attack = attacked(name, server.port, server.port)
            settle(self.app, server.port)
            got.append((calm, past, under, attack.served, attack.refused))
            if "BENCH_SHOW" in os.environ:
                print(f"  {name}, {server_name}: calm {calm} us, past {past}, attacked {under}", file=sys.stderr)
        server.close()
        running.remove(app)
        app.terminate()
        app.wait()
        return [statistics.median(v) if None not in v else None for v in zip(*got)]


def main():
    if os.geteuid() != 0:
        raise SystemExit("bench: the siege needs root, for addresses and priorities of its own")
    settle_in()
    subprocess.run(["ip", "address", "add", f"{ATTACKED}/24", "dev", "lo"], check=True)
    # an attack that is over must not make the next one search for free ports
    Path("/proc/sys/net/ipv4/tcp_max_tw_buckets").write_text("0")
    wanted = sys.argv[1:] or list(ATTACKS)
    with tempfile.TemporaryDirectory(prefix="spaced-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        siege = Siege(folder)
        print(f"visitors' p99, medians of {ROUNDS}: attacked by calm, attacked by the attack made past the proxy (served/s, refused/s)\n")
        print("| attack on another Space | " + " | ".join(siege.names) + " |")
        print("|---" * (len(siege.names) + 1) + "|")
        for attack_name in wanted:
            cells = []
            for server_name in siege.names:
                calm, past, under, served, refused = siege.row(attack_name, server_name)
                cells.append(f"{under / calm:.2f}, {under / past:.2f}" + ("" if served is None else f" ({served:.0f}, {refused:.0f})"))
            print(f"| {attack_name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
