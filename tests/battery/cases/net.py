"""Group F: what an app reaches by its network, and what the proxy is made to reach for somebody else."""
import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from dataclasses import replace

from rig.battery import ROOT
from rig.case import Acts, Broken, judge
from rig.tenants import check, watched

from .reach import listen, own_address, own_doors

# --- F1, F2: in the daemon


def on_host(tenants, targets):
    """The control of F1: which of these the host itself reaches."""
    out = subprocess.run([tenants.battery.probe, "F1", targets], capture_output=True, text=True, timeout=60)
    return Acts.parse(out.stdout)


def victim_of(tenants):
    """The victim's address on its link, and its server's pid as the host sees it."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cwd/secret", encoding="ascii") as f:
                if f.read() == tenants.secret:
                    return tenants.daemon.get("bob", "victim", "/address").text, int(pid)
        except (OSError, UnicodeDecodeError):
            continue
    raise Broken("the victim has no process")


@watched(60)
def neighbours(tenants, case):
    """The victim's server, the daemon's port by every address of the host, all its listeners."""
    address, pid = victim_of(tenants)
    doors = [listen("127.0.0.1"), listen("0.0.0.0")]
    try:
        ports = [d.getsockname()[1] for d in doors]
        targets = [f"127.0.0.1:{tenants.daemon.port}", f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}"]
        if own_address():
            targets.append(f"{own_address()}:{ports[1]}")
        outside = on_host(tenants, ",".join(targets))
        if address:
            targets.append(f"{address}:7860")
            inside_victim = subprocess.run(
                ["nsenter", f"--net=/proc/{pid}/ns/net", tenants.battery.probe, "F1", targets[-1]],
                capture_output=True, text=True, timeout=60)
            outside.reached |= Acts.parse(inside_victim.stdout).reached
            gateway = address.rsplit(".", 1)
            targets.append(f"{gateway[0]}.{int(gateway[1]) - 1}:{ports[1]}")
            outside.reached |= on_host(tenants, targets[-1]).reached
        return judge(outside, tenants.probe(replace(case, argument=lambda b: ",".join(targets))))
    finally:
        for door in doors:
            door.shutdown(socket.SHUT_RDWR)
            door.close()


def host_and_neighbours(battery, case):
    text = own_doors(battery, case)
    return f"{text}; beside a victim: {neighbours(battery, case)}" if battery.config.name == "host" else text


METADATA = ("169.254.169.254", "168.63.129.16", "10.66.0.1", "172.20.66.1", "192.168.66.1", "100.64.66.1", "198.18.66.1")

# Another namespace with addresses that nobody on the Internet has, as a cloud's host has them, and a route to each.
CLOUD = r"""
set -e
unshare -n sleep 300 &
cloud=$!
until [ "$(readlink /proc/$cloud/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
ip link add cloud0 type veth peer name eth0 netns $cloud
ip link set cloud0 up
nsenter -t $cloud -n sh -c 'ip link set lo up; ip link set eth0 up; for a in %s; do ip addr add $a/32 dev eth0; done
    ip route add 203.0.113.1 dev eth0'
for a in %s; do ip route add $a dev cloud0 src 203.0.113.1; done
echo 1 >/proc/sys/net/ipv4/conf/all/proxy_arp
nsenter -t $cloud -n python3 -c '
import socket
s = socket.create_server(("0.0.0.0", 80), backlog=64)
print("up", flush=True)
while True: s.accept()[0].close()' >/tmp/cloud-$$ &
server=$!
until grep -q up /tmp/cloud-$$; do sleep 0.01; done
rm /tmp/cloud-$$
echo "-- outside"
"$1" F1 "$2"
echo "-- inside"
"$3" run --egress internet --ro-bind "$1" /opt/probe -- /opt/probe F1 "$2"
kill $cloud $server
"""


def in_fake_internet(battery, *argv, timeout=400):
    done = subprocess.run([str(ROOT / "tests" / "fake_internet"), *map(str, argv)], capture_output=True, text=True,
                          timeout=timeout, stdin=subprocess.DEVNULL, env=battery.env)
    if done.returncode:
        raise Broken(f"status {done.returncode} in the Internet of the test: {done.stderr.strip()[-400:]}")
    return done.stdout


def halves(text):
    outside, inside = text.split("-- outside\n")[1].split("-- inside\n")
    return Acts.parse(outside), Acts.parse(inside)


@watched(100)
def control(tenants, case):
    """Whoever does not say who they are gets nothing; the metadata services of clouds are not there."""
    daemon = tenants.daemon
    token = daemon.token("root-of-nothing")
    routes = ["/api/admin/status", "/api/admin/users", "/api/admin/tokens", "/api/admin/events",
              "/api/spaces/bob/victim/events", "/api/spaces/bob/victim/builds"]
    for route in routes:
        for headers in ({}, {"Authorization": f"Bearer {token}"}, {"Authorization": "Bearer hf_wrong"}):
            answer = daemon.request("GET", route, headers=headers)
            check(answer.status in (401, 403, 404), f"{route} with {headers}: {answer.status}")
    owner = {"Authorization": f"Bearer {daemon.token('bob')}"}
    opened = [r for r in routes if "bob" in r and daemon.request("GET", r, headers=owner).status == 200]
    if not opened:
        raise Broken("nothing of it opens for the owner either")
    paths = [str(daemon.state), str(daemon.state / "control.sock"), "/var/lib/spaced", "/run/spaced"]
    check(os.path.exists(paths[1]), "the control socket is elsewhere")
    seen = json.loads(tenants.python("import json,os,sys; print(json.dumps([p for p in sys.argv[1:] if os.path.exists(p)]))",
                                     *paths))
    check(not seen, f"the app sees {seen}")
    addresses = " ".join(METADATA)
    text = in_fake_internet(tenants.battery, "sh", "-c", CLOUD % (addresses, addresses), "sh", tenants.battery.probe,
                            ",".join(f"{a}:80" for a in METADATA), tenants.battery.sandbox)
    return f"{len(routes)} routes closed; metadata and private ranges: {judge(*halves(text))}"


# --- F3, F4, F5: in a sandbox


def unix_sockets(battery, case):
    with contextlib.ExitStack() as stack:
        names = [f"\0spaced-battery-{os.getpid()}", f"{battery.work}/unix"]
        for name in names:
            s = stack.enter_context(socket.socket(socket.AF_UNIX))
            s.bind(name)
            s.listen(16)
        case = replace(case, argument=lambda b: ",".join(n.replace("\0", "@") for n in names))
        battery.controls.pop(case.id, None)
        return judge(battery.outside(case), battery.inside(case, "--egress", "internet")
                     if battery.config.name != "rootless" else battery.inside(case))


F4_NEIGHBOUR, F4_LINK = "10.9.9.9", "bat0"
F4_CONTROL = ("-n", "sh", "-c", f"""
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad 2>/dev/null
ip link set lo up && ip link add {F4_LINK} type veth peer name bat1 && ip addr add {F4_NEIGHBOUR}/24 dev {F4_LINK} &&
ip link set {F4_LINK} up && ip link set bat1 up && exec "$@" """, "sh")


def spoofing(battery, case):
    options = () if battery.config.name == "rootless" else ("--egress", "internet")
    return judge(battery.outside(case), battery.inside(case, *options))


PORTS = """
import os, socket, sys
def serve(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(("0.0.0.0", port))
    s.listen()
    return s
KEEP = [serve(80), serve(443), serve(int(sys.argv[1])), serve(int(sys.argv[2]))]
print("bound", flush=True)
import time
while not os.path.exists("/tmp/ports-seen"):
    time.sleep(0.02)
os.unlink("/tmp/ports-seen")
"""


@watched(60)
def ports(tenants, case):
    """A second process binds low ports, the daemon's own and one that is free on the host: all in its own namespace."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        free = s.getsockname()[1]
    before = {p: reachable(p) for p in (80, 443, free)}
    done = []
    thread = threading.Thread(target=lambda: done.append(
        tenants.python(PORTS, str(free), str(tenants.daemon.port), timeout=200)))
    thread.start()
    pid = tenants.pid()
    deadline = time.monotonic() + 60
    while f":{free:04X} " not in open(f"/proc/{pid}/net/tcp").read():
        if time.monotonic() > deadline:
            raise Broken("the ports were not bound")
        time.sleep(0.02)
    during = {p: reachable(p) for p in before}
    healthy = tenants.daemon.healthy()
    tenants.python("open('/tmp/ports-seen', 'w')")
    thread.join()
    check(before == during, f"ports of the host have changed: {before} -> {during}")
    check(healthy, "the daemon's port was taken over")
    check(done and "bound" in done[0], "not even in its own namespace")
    return "low ports and the daemon's port are bound in the app's own namespace, the host's are as they were"


def reachable(port):
    with socket.socket() as s:
        s.settimeout(2)
        return s.connect_ex(("127.0.0.1", port)) == 0


# --- F6, F7: an Internet of the test's own

FLOWS = r"""
count() { cat /proc/sys/net/netfilter/nf_conntrack_count; }
"$3" run --egress internet --ro-bind "$1" /opt/probe -- /opt/probe F6 "198.51.100.10 $2" >/dev/null || exit 1
echo "inside $(count)"
"$1" F6 "198.51.100.10 $2" >/dev/null
echo "outside $(count)"
echo "max $(cat /proc/sys/net/netfilter/nf_conntrack_max)"
"""
FLOWS_PER_APP = 4096

SOCKETS = """
import resource, socket
server = socket.create_server(("127.0.0.1", 0), backlog=4096)
all, why = [], ""
try:
    while len(all) < 70000:
        all.append(socket.create_connection(server.getsockname(), timeout=2))
except OSError as e:
    why = str(e)
print(len(all), why)
"""


@watched(100)
def floods(tenants, case):
    """The app fills what it can: its own sockets, the host's table of connections, connections to the proxy."""
    numbers = {}
    text = in_fake_internet(tenants.battery, "sh", "-c", FLOWS, "sh", tenants.battery.probe, "20000",
                            tenants.battery.sandbox)
    for line in text.splitlines():
        word, _, n = line.partition(" ")
        numbers[word] = int(n)
    if numbers["outside"] - numbers["inside"] < 15000:
        raise Broken(f"the host itself makes no connections either: {numbers}")
    check(numbers["inside"] <= FLOWS_PER_APP + 64,
          f"one app has {numbers['inside']} of {numbers['max']} connections of the host")
    made, _, why = tenants.python(SOCKETS).partition(" ")
    check(int(made) < 20000, f"{made} sockets in one app")
    storm = []
    try:
        for _ in range(3000):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(("127.0.0.1", tenants.daemon.port))
            storm.append(s)
        time.sleep(2)
    finally:
        for s in storm:
            s.close()
    return (f"{numbers['inside']} of 20000 flows are kept ({numbers['outside'] - numbers['inside']} from the host), "
            f"{made} sockets ({why.strip()}), 3000 silent connections to the proxy")


POLICY = r"""
printf 'ok.test:80\n' >"$FAKE_INTERNET/list"
for policy in internet none list:"$FAKE_INTERNET/list"; do
    echo "== $policy"
    "$1" run --egress "$policy" -- python3 -c "$2"
done
echo "== host"
python3 -c "$2"
"""
PROBE_POLICY = """
import socket
def tcp(host, port):
    try:
        socket.create_connection((host, port), 10).close()
        return True
    except OSError:
        return False
def udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(5)
    server = [l.split()[1] for l in open("/etc/resolv.conf") if l.startswith("nameserver")][0]
    try:
        s.sendto(bytes.fromhex("123401000001000000000000026f6b04746573740000010001"), (server, 53))
        return len(s.recv(512)) > 0
    except OSError:
        return False
def icmp():
    try:
        s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
        s.settimeout(5)
        s.sendto(bytes([8, 0, 247, 255, 0, 0, 0, 0]), ("198.51.100.10", 0))
        return len(s.recv(512)) > 0
    except OSError:
        return False
print("tcp-address", tcp("198.51.100.11", 80))
print("tcp-name", tcp("ok.test", 80))
print("tcp-other-port", tcp("ok.test", 81))
print("dns", udp())
print("icmp", icmp())
"""
POLICIES = {  # what each lets through
    "host": {"tcp-address", "tcp-name", "tcp-other-port", "dns", "icmp"},
    "internet": {"tcp-address", "tcp-name", "tcp-other-port", "dns"},
    "none": set(),
    "list": {"tcp-name", "dns"},
}


def policies(battery, case):
    """Up to three times: on a busy machine an answer may come later than it is waited for. What is forbidden never comes."""
    seen = {policy: set() for policy in POLICIES}
    for _ in range(3):
        for line in in_fake_internet(battery, "sh", "-c", POLICY, "sh", battery.sandbox, PROBE_POLICY).splitlines():
            word, _, value = line.partition(" ")
            if word == "==":
                now = seen[value.partition(":")[0]]
            elif value == "True":
                now.add(word)
        for policy, allowed in POLICIES.items():
            check(not seen[policy] - allowed, f"{policy} lets {sorted(seen[policy] - allowed)} through")
        if seen == POLICIES:
            break
    for policy, allowed in POLICIES.items():
        if allowed - seen[policy]:
            raise Broken(f"{policy} lets {sorted(allowed - seen[policy])} not through, and should")
    return "none: nothing; list: what it names and its DNS; internet: TCP, UDP, no ICMP"


# --- F8


@watched(60)
def through_the_proxy(tenants, case):
    """Raw requests whose parts disagree about where they go, and fields that say who sent them."""
    daemon = tenants.daemon
    mine, theirs = (f"{daemon.host(*s)}" for s in (("alice", "attacker"), ("bob", "victim")))
    port = daemon.port

    def ask(text):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as s:
            s.sendall(text.encode())
            s.shutdown(socket.SHUT_WR)
            data = b""
            while chunk := s.recv(65536):
                data += chunk
            return data.decode("latin-1")
    if tenants.secret not in ask(f"GET / HTTP/1.1\r\nHost: {theirs}\r\nConnection: close\r\n\r\n"):
        raise Broken("the victim does not answer to its own name")
    end = "Connection: close\r\n\r\n"
    tricks = {
        "X-Forwarded-Host": f"GET / HTTP/1.1\r\nHost: {mine}\r\nX-Forwarded-Host: {theirs}\r\n{end}",
        "X-Host, Forwarded": f"GET / HTTP/1.1\r\nHost: {mine}\r\nX-Host: {theirs}\r\nForwarded: host={theirs}\r\n{end}",
        "two Hosts": f"GET / HTTP/1.1\r\nHost: {mine}\r\nHost: {theirs}\r\n{end}",
        "user in Host": f"GET / HTTP/1.1\r\nHost: {mine}@{theirs}\r\n{end}",
        "CONNECT": f"CONNECT {theirs}:{port} HTTP/1.1\r\nHost: {theirs}:{port}\r\n{end}",
        "CONNECT to the host": f"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n{end}",
        "Host of a private address": f"GET / HTTP/1.1\r\nHost: 169.254.169.254\r\n{end}",
        "absolute form elsewhere": f"GET http://169.254.169.254/ HTTP/1.1\r\nHost: {mine}\r\n{end}",
        "no Host": f"GET / HTTP/1.1\r\n{end}",
        "Host in a fold": f"GET / HTTP/1.1\r\nHost: {mine}\r\n {theirs}\r\n{end}",
    }
    for name, text in tricks.items():
        answer = ask(text)
        check(tenants.secret not in answer, f"{name}: got to the victim")
        if "CONNECT" in name or "elsewhere" in name or "private" in name:
            check(answer.split(" ", 2)[1] >= "400", f"{name}: {answer[:60]!r}")
    # absolute form names its host: it wins over Host, as RFC 9112 3.2.2 wants, and no less by our table
    absolute = ask(f"GET http://{theirs}/ HTTP/1.1\r\nHost: {mine}\r\n{end}")
    check(tenants.secret in absolute or absolute.split(" ", 2)[1] == "400", f"absolute form: {absolute[:60]!r}")
    lies = {"X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6", "X-Forwarded-Proto": "lie",
            "X-Forwarded-Host": "lie", "X-Forwarded-Port": "99999"}
    line, fields = daemon.get("alice", "attacker", "/fields", headers=lies).json()
    seen = {}
    for name, value in fields:
        seen.setdefault(name.lower(), []).append(value)
    for name, value in lies.items():
        got = seen.get(name.lower(), [])
        check(len(got) <= 1 and value not in " ".join(got), f"{name}: the app believes {got}")
    check("127.0.0.1" in " ".join(seen.get("x-forwarded-for", [])), "the app does not learn who asks")
    check(line.startswith("GET /fields "), f"the app was sent {line!r}")
    return f"{len(tricks) + 1} ways to name another host, {len(lies)} spoofed fields replaced"
