"""tests/bench/proxy: our proxy next to nginx, HAProxy and Caddy: the same backend, the same minute, one worker each on a CPU of its own,
runs in turn. Prints a table; the last column is ours by the better of nginx and HAProxy, so that 1.00 or more is no slower.

  BENCH_ROUNDS=5 BENCH_SECONDS=2 BENCH_NICE=-15 tests/bench/proxy/bench.py [ROW]..."""
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from servers import BUILD, LOAD_CPU, Server, available, free_port, on_cpu, pinned, running, settle_in, wait_port

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))
LOAD = BUILD / "tests/bench/proxy/load"
IDLE = 10000


class Direct:
    """The backend without a proxy: what latency is there anyhow."""
    name = "direct"

    def __init__(self, port):
        self.port = port

    def cpu(self):
        return 0


def load(server, mode, connections, seconds=SECONDS, *more):
    before = server.cpu()
    done = subprocess.run([*pinned(LOAD_CPU), LOAD, str(server.port), mode, str(connections), str(seconds), *map(str, more)],
                          stdout=subprocess.PIPE, text=True, check=True)
    answer = json.loads(done.stdout)
    answer["cpu"] = server.cpu() - before
    if answer["failed"] > answer["done"] / 1000:
        raise SystemExit(f"bench: {server.name}: {answer['failed']} of {answer['done']} failed ({mode})")
    return answer


def wrk(server, connections):
    before = server.cpu()
    done = subprocess.run([*pinned(LOAD_CPU), "wrk", "-t1", f"-c{connections}", f"-d{max(1, round(SECONDS))}s",
                           f"http://127.0.0.1:{server.port}/"], stdout=subprocess.PIPE, text=True, check=True)
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(f"bench: {server.name}: {done.stdout}")
    count, seconds = re.search(r"(\d+) requests in ([\d.]+)s", done.stdout).groups()
    if int(count) == 0:
        raise SystemExit(f"bench: {server.name} answered nothing on {connections} connections: {done.stdout}")
    return {"done": int(count), "seconds": float(seconds), "cpu": server.cpu() - before}


def idle(server):
    """Bytes for each of 10,000 idle connections, and all of the process; a server of its own, because memory is seldom given back."""
    before = server.memory()[0]
    client = on_cpu(LOAD_CPU, LOAD, server.port, "idle", IDLE, 0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    answer = json.loads(client.stdout.readline())
    own, rss = server.memory()
    client.stdin.close()
    client.wait()
    running.remove(client)
    if answer["done"] < IDLE:
        raise SystemExit(f"bench: {server.name}: only {answer['done']} of {IDLE} connections")
    return {"each": (own - before) / IDLE, "rss": rss}


class Bench:
    def __init__(self, wanted, folder):
        self.folder = folder
        self.backend_port = free_port()
        self.backend = on_cpu(LOAD_CPU, BUILD / "tests/bench/proxy/backend", self.backend_port)
        wait_port(self.backend_port, self.backend)
        self.names = available()
        self.rows, self.rate, self.wanted = {}, 5000, wanted
        self.direct, self.beside = Direct(self.backend_port), {}

    def add(self, row, server, value):
        if value is not None:
            self.rows.setdefault(row, {}).setdefault(server.name, []).append(value)

    def is_wanted(self, kind):
        return not self.wanted or kind in self.wanted

    def measure(self, server, proxies):
        for n in (1, 64, 512):
            if self.is_wanted(f"wrk{n}") or self.is_wanted("wrk"):
                got = wrk(server, n)
                self.add(f"requests/s, {n} connection{'s' if n > 1 else ''}", server, got["done"] / got["seconds"])
                if proxies:
                    self.add(f"CPU per request, us, {n} connection{'s' if n > 1 else ''}", server, got["cpu"] / got["done"] * 1e6)
        if self.is_wanted("rate"):
            got = load(server, "rate", 256, SECONDS, self.rate)
            self.add("latency p50 at half load, us", server, got["p50"])
            self.add("latency p99 at half load, us", server, got["p99"])
        if self.is_wanted("close"):
            self.measure_close(server)
            if proxies:
                self.measure_close(self.beside[server.name], ", all on one CPU")
        if self.is_wanted("ws"):
            got = load(server, "ws", 64)
            self.add("WebSocket round trips/s, 64 connections", server, got["done"] / got["seconds"])
            self.add("CPU per round trip, us" if proxies else "", server, got["cpu"] / got["done"] * 1e6)
        for mode, name in (("down", "download of 100 MB bodies"), ("up", "upload of 100 MB bodies")):
            if self.is_wanted(mode):
                got = load(server, mode, 1)
                self.add(f"{name}, MB/s", server, got["bytes"] / got["seconds"] / 1e6)
                self.add(f"CPU per MB, {name.split()[0]}, us" if proxies else "", server, got["cpu"] / got["bytes"] * 1e12)

    def measure_close(self, server, where=""):
        """On two CPUs the client's is the bottleneck: it also pays for each time that it wakes a proxy that had nothing to do."""
        got = load(server, "close", 64)
        self.add(f"connections/s, without keep-alive{where}", server, got["done"] / got["seconds"])
        if server is not self.direct:
            self.add(f"CPU per connection, us{where}", server, got["cpu"] / got["done"] * 1e6)
            self.add(f"share of its CPU then, %{where}", server, got["cpu"] / got["seconds"] * 100)

    def start(self, name, **options):
        folder = self.folder / f"{name}-{free_port()}"
        folder.mkdir()
        return Server(name, folder, self.backend_port, **options)

    def run(self):
        servers = [self.start(name) for name in self.names]
        self.beside = {name: self.start(name, cpu=LOAD_CPU) for name in self.names if self.is_wanted("close")}
        if self.is_wanted("rate"):
            rates = [wrk(server, 64) for server in servers if server.name != "caddy"]
            self.rate = round(min(got["done"] / got["seconds"] for got in rates) / 2)
        for number in range(ROUNDS):
            for server in servers:
                self.measure(server, True)
            self.measure(self.direct, False)
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
        for server in [*servers, *self.beside.values()]:
            server.close()
        for name in self.names if self.is_wanted("idle") else []:
            server = self.start(name)
            got = idle(server)
            self.add(f"memory per idle connection of {IDLE}, bytes", server, got["each"])
            self.add("RSS with these, KiB", server, got["rss"] / 1024)
            server.close()

    def print(self):
        names = self.names
        print(f"{'median of ' + str(ROUNDS):48}" + "".join(f"{name:>10}" for name in [*names, "direct"]) + "   ratio")
        for row, values in self.rows.items():
            if not row:
                continue
            medians = {name: statistics.median(values[name]) for name in values}
            rivals = [medians[name] for name in ("nginx", "haproxy") if name in medians]
            more_is_better = "/s" in row
            shown = dict(medians)
            if "latency" in row and "direct" in medians:
                medians = {name: max(1, value - medians["direct"]) for name, value in medians.items()}
                rivals = [medians[name] for name in ("nginx", "haproxy") if name in medians]
            ratio = "-"
            if rivals and "%" not in row:
                ratio = f"{medians['ours'] / max(rivals) if more_is_better else min(rivals) / medians['ours']:.2f}"
            print(f"{row:48}" + "".join(f"{shown[name]:10.1f}" if name in shown and shown[name] < 1000 else f"{shown[name]:10.0f}"
                                        if name in shown else f"{'':10}" for name in [*names, "direct"]) + f"   {ratio:>5}")
        if self.is_wanted("rate"):
            print(f"half load: {self.rate} requests/s on at most 256 connections; the ratio is of what comes on top of `direct`")


def main():
    settle_in()
    with tempfile.TemporaryDirectory(prefix="spaced-bench-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        bench = Bench(sys.argv[1:], Path(folder))
        bench.run()
        bench.print()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
