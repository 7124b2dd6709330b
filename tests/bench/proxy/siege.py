"""tests/bench/proxy: what a Space's visitors feel while another Space of the same proxy is attacked: p99 at a steady rate, under the
attack by calm, calm and attacked seconds in turn. The goal is at most 2. Attackers come from one address and the visitors from another;
limits are as they are by default. Both stand on the CPU that the proxy does not have, the attackers behind the visitors (nice), and
`direct` is the backend alone meanwhile: what the machine itself adds. On two CPUs that is most of it; compare the columns.

  BENCH_ROUNDS=5 BENCH_SECONDS=2 tests/bench/proxy/siege.py [ATTACK]..."""
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from servers import BUILD, LOAD_CPU, Server, available, free_port, on_cpu, pinned, running, settle_in, wait_port

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))
RATE = 1000
LOAD = BUILD / "tests/bench/proxy/load"
VICTIM, ATTACKED, ATTACKER = "127.0.0.2", "127.0.0.1", "127.0.0.1"
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
SLOW = {"slow heads": ["-H"], "slow bodies": ["-B"], "ranges": ["-R"], "slow reading": ["-X", "-w", "1", "-y", "2", "-z", "1", "-n", "5"]}


def p99(port):
    before = ["nice", "-n", "-10"] if os.geteuid() == 0 else []
    done = subprocess.run([*before, *pinned(LOAD_CPU), LOAD, str(port), "rate", "64", str(SECONDS), str(RATE)], stdout=subprocess.PIPE, text=True,
                          check=True, env={**os.environ, "LOAD_FROM": VICTIM})
    answer = json.loads(done.stdout)
    if answer["failed"]:
        raise SystemExit(f"bench: {answer['failed']} of {answer['done']} visitors failed")
    # requests that were due and never sent, because no connection was free, have waited as long as we looked
    return answer["p99"] if answer["done"] >= 0.99 * RATE * SECONDS else max(answer["p99"], SECONDS * 1e6)


class Attack:
    """Under way as long as the `with` lasts."""

    def __init__(self, name, port):
        self.name, self.port = name, port
        self.process = self.over = None

    def __enter__(self):
        behind = ["nice", "-n", "10"]
        if self.name in SLOW:
            # ranges are answered at once, so they come one after the other; of the others a thousand stand
            self.process = on_cpu(LOAD_CPU, *behind, "slowhttptest", *SLOW[self.name], "-c", 60000 if self.name == "ranges" else 1000, "-r", 1000,
                                  "-i", 1, "-l", 3600, "-x", 16, "-p", 5, "-v", 0, "-u",
                                  f"http://{ATTACKED}:{self.port}/{'big' if self.name == 'slow reading' else ''}", **QUIET)
        elif self.name == "idle connections":
            self.process = on_cpu(LOAD_CPU, *behind, LOAD, self.port, "idle", 10000, 0, stdin=subprocess.PIPE, **QUIET,
                                  env={"LOAD_HOST": ATTACKED})
        elif self.name == "connection flood":
            self.process = on_cpu(LOAD_CPU, *behind, sys.executable, __file__, "--flood", self.port, "connections", **QUIET)
        else:
            self.process = on_cpu(LOAD_CPU, *behind, sys.executable, __file__, "--flood", self.port, "headers", **QUIET)
        return self

    def __exit__(self, *_):
        running.remove(self.process)
        self.process.kill()
        self.process.wait()


ATTACKS = [*SLOW, "idle connections", "connection flood", "header flood"]


def flood(port, kind):
    """Eight threads that open, send and close as fast as they can; never ends by itself."""
    head = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    text = head + (b"".join(b"X-%d: %s\r\n" % (i, b"a" * 1000) for i in range(200)) if kind == "headers" else b"\r\n")

    def run():
        while True:
            try:
                with socket.create_connection((ATTACKED, port), 5) as s:
                    s.sendall(text)
                    s.recv(65536)
            except OSError:
                pass

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def wait_for_attack(attack, server):
    """Until the server has the attacker's connections: a flood's come and go, of the others there must be many."""
    want = 1 if attack.name in ("ranges", "connection flood", "header flood") else 100
    end = time.monotonic() + 20
    while time.monotonic() < end:
        count = subprocess.run(["ss", "-Hatn", "sport", "=", f":{server.port}"], capture_output=True, text=True, check=True)
        if len(count.stdout.splitlines()) > want:
            return
        time.sleep(0.02)
    raise SystemExit(f"bench: {attack.name}: no attack came about")


def main():
    settle_in()
    wanted = sys.argv[1:] or ATTACKS
    with tempfile.TemporaryDirectory(prefix="spaced-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        backend = free_port()
        wait_port(backend, on_cpu(LOAD_CPU, BUILD / "tests/bench/proxy/backend", backend))
        rows = {}
        names = [n for n in available() if n in ("ours", "nginx", "haproxy")]
        for attack_name in wanted:
            for server_name in names:
                where = folder / re.sub(r"\W", "-", f"{attack_name}-{server_name}")
                where.mkdir()
                server = Server(server_name, where, backend)
                ratios = rows.setdefault(attack_name, {}).setdefault(server_name, [])
                direct = rows[attack_name].setdefault("direct", [])
                for _ in range(ROUNDS):
                    calm, calm_direct = p99(server.port), p99(backend)
                    with Attack(attack_name, server.port) as attack:
                        wait_for_attack(attack, server)
                        ratios.append(p99(server.port) / calm)
                        direct.append(p99(backend) / calm_direct)
                server.close()
            print(f"{attack_name}: done", file=sys.stderr)
    print(f"{'p99 of others under attack / calm, median of ' + str(ROUNDS):54}" + "".join(f"{n:>10}" for n in [*names, "direct"]))
    for attack_name, values in rows.items():
        print(f"{attack_name:54}" + "".join(f"{statistics.median(values[n]):10.2f}" for n in [*names, "direct"]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--flood"]:
        flood(int(sys.argv[2]), sys.argv[3])
    else:
        main()
