"""The proxies that are compared, each with one worker, keep-alive on both sides, no access log, bodies streamed and the same forwarding
fields; and what the kernel says each has used."""
import atexit
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

BUILD = Path(os.environ.get("SPACED_BUILD", "build")).resolve()
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"
PROXY_CPU, LOAD_CPU = (0, 1) if os.cpu_count() > 1 else (0, 0)

NGINX = """
user root; daemon off; worker_processes 1; worker_rlimit_nofile {files}; pid {dir}/nginx.pid; error_log {dir}/nginx.log crit;
events {{ worker_connections 16384; }}
http {{
	access_log off; keepalive_timeout 60s; keepalive_requests 1000000000; tcp_nodelay on;
	map $http_upgrade $to_backend {{ default upgrade; '' ''; }}
{sites}}}
"""

NGINX_SITE = """
	upstream {host} {{ server 127.0.0.1:{backend}; keepalive 1024; keepalive_requests 1000000000; }}
	server {{
		listen {address}:{port}{options}; server_name {host}; client_max_body_size 0;
		location / {{
			proxy_pass http://{host}; proxy_http_version 1.1; proxy_request_buffering off; proxy_max_temp_file_size 0;
			proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k; client_body_buffer_size 64k;
			proxy_set_header Host $http_host; proxy_set_header X-Real-IP $remote_addr;
			proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
			proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Forwarded-Port {port};
			proxy_set_header X-Request-Id $request_id;
			proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $to_backend;
		}}
	}}
"""

HAPROXY = """
global
	nbthread 1
	maxconn 12000
	no strict-limits
defaults
	mode http
	option http-keep-alive
	option forwardfor
	http-reuse always
	timeout connect 5s
	timeout client 60s
	timeout server 300s
	timeout tunnel 1h
frontend in
	bind {address}:{port} backlog 4096
	http-request set-header X-Real-IP %[src]
	http-request set-header X-Forwarded-Proto http
	http-request set-header X-Forwarded-Host %[req.hdr(host)]
	http-request set-header X-Forwarded-Port {port}
	http-request set-header X-Request-Id %[uuid]
{others}	default_backend backend
backend backend
	server one 127.0.0.1:{backend} pool-max-conn 1024
"""

HAPROXY_SITE = """
backend {host}
	server one 127.0.0.1:{backend} pool-max-conn 1024
"""

CADDY = """
{{
	admin off
	auto_https off
	log {{
		level ERROR
	}}
}}
http://127.0.0.1:{port}, http://bench.localhost:{port} {{
	bind 127.0.0.1
	reverse_proxy 127.0.0.1:{backend} {{
		transport http {{
			keepalive_idle_conns_per_host 1024
		}}
	}}
}}
"""


FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
running = []


def end_all():
    for process in running:
        process.terminate()
    for process in running:
        process.wait()


atexit.register(end_all)


def free_port():
    """Below the range of clients' own ports, so that none of them takes it."""
    while True:
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", random.randrange(20000, 32000)))
                return s.getsockname()[1]
            except OSError:
                continue


def settle_in():
    """As root: a network namespace of our own, without the host's packet filters, and before others that run (BENCH_NICE, say -15)."""
    if os.geteuid() != 0:
        return
    if not os.environ.get("BENCH_SETTLED"):
        os.environ["BENCH_SETTLED"] = "1"
        os.execvp("unshare", ["unshare", "--net", "--", sys.executable, *sys.argv])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    if "BENCH_NICE" in os.environ:
        Path("/proc/self/autogroup").write_text(os.environ["BENCH_NICE"])


def pinned(cpu):
    return ["taskset", "-c", str(cpu)]


def on_cpu(cpu, *words, **options):
    environment = {**os.environ, "PATH": PATH, **options.pop("env", {})}
    running.append(subprocess.Popen([*pinned(cpu), *map(str, words)], env=environment, **options))
    return running[-1]


def wait_port(port, process):
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if process.poll() is not None:
                raise SystemExit(f"bench: {process.args} ended") from None
            time.sleep(0.01)
    raise SystemExit(f"bench: {process.args} does not listen")


class Server:
    """`name` in front of the backend; the worker process is `pid`. `other`: (HOST, PORT), a host that has another backend; then it listens on
    all addresses. `before`: words before the program. `cpu`: where it runs."""

    def __init__(self, name, folder, backend, limits=(), other=None, before=(), cpu=PROXY_CPU):
        self.name, self.port = name, free_port()
        words = {"dir": folder, "backend": backend, "port": self.port, "files": FILES, "address": "0.0.0.0" if other else "127.0.0.1"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        if name == "ours":
            hosts = [("bench.localhost", backend), ("127.0.0.1", backend), *([other] if other else [])]
            (folder / "routes").write_text("".join(f"{host} 127.0.0.1:{port}\n" for host, port in hosts))
            limits = [word for limit in limits for word in ("--limit", limit)]
            self.process = on_cpu(cpu, *before, BUILD / "proxy", "--listen", f"{words['address']}:{self.port}", "--routes", folder / "routes", "--workers", 1,
                                  *limits, **quiet)
        elif name == "nginx":
            sites = NGINX_SITE.format(**words, host="bench.localhost", options=" backlog=4096")
            if other:
                sites += NGINX_SITE.format(**{**words, "backend": other[1]}, host=other[0], options="")
            (folder / "nginx.conf").write_text(NGINX.format(**words, sites=sites))
            self.process = on_cpu(cpu, *before, "nginx", "-p", folder, "-e", folder / "nginx.err", "-c", folder / "nginx.conf", **quiet)
        elif name == "haproxy":
            rule = f"\tuse_backend {other[0]} if {{ hdr(host) -m beg {other[0]} }}\n" if other else ""
            site = HAPROXY_SITE.format(host=other[0], backend=other[1]) if other else ""
            (folder / "haproxy.cfg").write_text(HAPROXY.format(**words, others=rule) + site)
            self.process = on_cpu(cpu, *before, "haproxy", "-db", "-f", folder / "haproxy.cfg", **quiet)
        elif name == "caddy":
            (folder / "Caddyfile").write_text(CADDY.format(**words))
            self.process = on_cpu(cpu, *before, "caddy", "run", "--adapter", "caddyfile", "--config", folder / "Caddyfile",
                                  env={"GOMAXPROCS": "1", "HOME": str(folder)}, **quiet)
        wait_port(self.port, self.process)
        self.pid = self.worker() if name == "nginx" else self.process.pid

    def worker(self):
        """Of nginx, which listens before it is there."""
        for _ in range(500):
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            if children:
                return int(children[0])
            time.sleep(0.01)
        raise SystemExit(f"bench: {self.process.args} has no worker")

    def cpu(self):
        """Seconds that it ran, user and system."""
        return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{self.pid}/task").iterdir()) / 1e9

    def memory(self):
        """Bytes of its own: what is shared with files does not count."""
        lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
        return sizes["Anonymous"] * 1024, sizes["Rss"] * 1024

    def close(self):
        running.remove(self.process)
        self.process.terminate()
        self.process.wait()


def available():
    return ["ours"] + [name for name in ("nginx", "haproxy", "caddy") if shutil.which(name, path=PATH)]
