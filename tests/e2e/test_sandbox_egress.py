"""`sandbox run --egress`, as root and rootless: what each policy lets through, in an Internet of the test's own
(tests/fake_internet), and the limit on bandwidth, measured."""
import os
import re
import subprocess
from pathlib import Path

import pytest

from harness import BUILD

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes network namespaces")

LIST = """# what the probes below expect
ok.test:80
*.below.test
alias.test:81
private.test
mixed.test:81
alias-private.test
203.0.113.0/24:81
"""

PROBE = r'''
import socket, sys, time
def reach(host, port):
    try:
        socket.create_connection((host, int(port)), 4).close()
        return "open"
    except OSError:
        return "closed"
def resolve(name):
    try:
        return ",".join(sorted({a[4][0] for a in socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)}))
    except socket.gaierror:
        return "nothing"
def udp(host, port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(1)
    try:
        s.sendto(bytes.fromhex("123401000001000000000000026f6b04746573740000010001"), (host, int(port)))
        s.recv(512)
        return "answered"
    except OSError:
        return "closed"
def take(verb, host, count):
    """Seconds, from before the first byte until behind the last: who is not scheduled meanwhile makes it more, never less."""
    with socket.create_connection((host, 80)) as s:
        began, left = time.monotonic(), int(count)
        s.sendall(b"%s %s\n" % (verb.encode(), count.encode()))
        while left:
            n = s.send(bytes(min(left, 65536))) if verb == "put" else len(s.recv(min(left, 65536)))
            assert n
            left -= n
        assert verb == "get" or s.recv(2) == b"ok"
        return time.monotonic() - began
def seconds(verb, host, count, enough):
    """Of each try; there are more until one is as short as that."""
    tries, end = [], time.monotonic() + 60
    while not tries or min(tries) > float(enough) and time.monotonic() < end:
        tries.append(take(verb, host, count))
    return " ".join(map(str, tries))
for a in sys.argv[1:]:
    probe, _, wanted = a.partition("=")
    what, *words = probe.split()
    got, end = globals()[what](*words), time.monotonic() + 60
    while got in ("closed", "nothing") and wanted not in ("closed", "nothing", "") and time.monotonic() < end:
        got = globals()[what](*words)  # who answers may be slow
    print(probe + ":", got, flush=True)
'''


def run(mode, options, expected, **env):
    """Runs the probes in a sandbox, {"reach ok.test 80": "open"}; their output, and what the name server was asked."""
    command = [f"{BUILD}/sandbox", "run", *(["--rootless"] if mode == "rootless" else []), *options, "--", "python3", "-c",
               PROBE, *(f"{probe}={wanted}" for probe, wanted in expected.items())]
    shell = '"$@"; status=$?; echo "== $(tr "\\n" " " <$FAKE_INTERNET/queries)"; n=0; ' \
            'while left=$(pgrep -l -r R,S,D "spaced-|sandbox|slirp4netns") && [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done; ' \
            'echo "$left"; exit $status'
    done = subprocess.run([str(ROOT / "tests/fake_internet"), "sh", "-c", shell, "sh", *command], capture_output=True,
                          text=True, timeout=230, check=False, env={**os.environ, **env})
    assert done.returncode == 0, done.stdout + done.stderr
    text, asked = done.stdout.split("== ", 1)
    asked, _, left = asked.partition("\n")
    assert not left.strip(), "left behind: " + left
    return dict(line.split(": ", 1) for line in text.splitlines()), asked


def check(mode, options, expected, **env):
    """What the name server was asked, when all is as expected."""
    got, asked = run(mode, options, expected, **env)
    assert got == expected
    return asked


@pytest.fixture(params=["root", "rootless"])
def mode(request):
    return request.param


FORBIDDEN = [f"reach {address} 80" for address in ("203.0.113.1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.127.0.1",
                                                   "169.254.169.254", "168.63.129.16")]
INSIDE_ONLY = ["reach 10.0.2.2 80", "udp 10.0.2.2 53", "udp 127.0.0.1 53"]  # names of the host that exist only inside


def test_forbidden_is_reachable_outside():
    """The positive control: the host itself reaches all of it."""
    done = subprocess.run([str(ROOT / "tests/fake_internet"), "python3", "-c", PROBE,
                           *(f"{probe}=open" for probe in FORBIDDEN)], capture_output=True, text=True, timeout=200, check=True)
    assert done.stdout.splitlines() == [f"{probe}: open" for probe in FORBIDDEN]


@pytest.fixture
def names(tmp_path):
    """A list's file that a rootless sandbox may read, too."""
    for folder in [tmp_path, *tmp_path.parents]:
        if Path("/tmp") in folder.parents:
            folder.chmod(0o755)
    (tmp_path / "names").write_text(LIST)
    return tmp_path / "names"


def test_list(mode, names):
    asked = check(mode, ["--egress", f"list:{names}"], {
        "resolve ok.test": "198.51.100.10", "reach 198.51.100.10 80": "open",  # not before it was resolved, see below
        "reach 198.51.100.10 81": "closed", "resolve other.test": "nothing",
        "reach 198.51.100.11 80": "closed", "resolve x.ok.test": "nothing", "resolve a.below.test": "198.51.100.12",
        "reach 198.51.100.12 80": "open", "resolve below.test": "nothing", "resolve no.below.test": "nothing",
        "resolve OK.TEST": "198.51.100.10", "resolve alias.test": "198.51.100.10", "reach alias.test 81": "open",
        "resolve private.test": "nothing", "resolve mixed.test": "198.51.100.12", "resolve alias-private.test": "nothing",
        "resolve metadata.test": "nothing", "reach 203.0.113.2 81": "open", "reach 203.0.113.2 80": "closed",
        "reach 203.0.113.1 81": "closed", "udp 198.51.100.53 53": "closed", "udp 10.0.2.3 53": "answered",
        **{probe: "closed" for probe in FORBIDDEN + INSIDE_ONLY}})
    # a name that is not listed never leaves the host: no tunnel
    assert {word.split(".test")[0] for word in asked.split() if ".test" in word} == {
        "ok", "a.below", "no.below", "alias", "private", "mixed", "alias-private"}


def test_list_before_resolving(mode, names):
    """An address is reachable because its name was resolved, not otherwise; an empty list is one."""
    check(mode, ["--egress", f"list:{names}"], {"reach 198.51.100.10 80": "closed", "reach 198.51.100.12 81": "closed"})
    names.write_text("")
    asked = check(mode, ["--egress", f"list:{names}"], {"reach 198.51.100.10 80": "closed", "resolve ok.test": "nothing",
                                                        "udp 10.0.2.3 53": "answered"})
    assert asked.strip() == ""


def test_internet(mode):
    check(mode, ["--egress", "internet"], {
        "resolve ok.test": "198.51.100.10", "reach ok.test 80": "open", "reach 198.51.100.11 81": "open",
        "reach 203.0.113.2 80": "open", "reach private.test 80": "closed",
        **{probe: "closed" for probe in FORBIDDEN + INSIDE_ONLY}})


def test_stub_resolver(mode, names):
    """The host's resolv.conf names its own loopback: names resolve, and nothing else of that loopback is reachable."""
    for policy in ("internet", f"list:{names}"):
        check(mode, ["--egress", policy], {"resolve ok.test": "198.51.100.10", "reach ok.test 80": "open",
                                           "udp 127.0.0.53 53": "closed", "udp 10.0.2.2 53": "closed"}, FAKE_STUB="1")


def test_none(mode):
    asked = check(mode, ["--egress", "none"], {"resolve ok.test": "nothing", "reach 198.51.100.10 80": "closed",
                                               "udp 198.51.100.53 53": "closed"})
    assert asked.strip() == ""


def test_bandwidth(mode):
    """Each way: near its limit, never above; without a limit far above."""
    limit = 1 << 20
    size = 4 * limit
    saved = (limit if mode == "rootless" else limit // 10) + (1 << 17)  # nft's bucket holds what a second allows, tc's little

    def tries(enough, *options):
        probes = {f"seconds {verb} 198.51.100.10 {size} {enough}": "" for verb in ("get", "put")}
        got, _ = run(mode, ["--egress", "internet", *options], probes)
        return [[float(word) for word in got[probe].split()] for probe in probes]

    capped, free = tries(4 / 0.3, "--bandwidth", str(limit)), tries(1)
    for slow, fast in zip(capped, free):
        print(slow, fast)
        assert all(size <= 1.05 * limit * seconds + saved for seconds in slow)
        assert min(slow) <= 4 / 0.3
        assert min(fast) <= 1


def test_bad_lists_are_refused(tmp_path):
    for text, why in [("10.0.0.0/8\n", "never reachable"), ("ok.test\n[2001:db8::1]\n", "line 2"), ("a b\n", "neither")]:
        (tmp_path / "names").write_text(text)
        done = subprocess.run([f"{BUILD}/sandbox", "run", "--egress", f"list:{tmp_path}/names", "--", "true"],
                              capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 125 and re.search(why, done.stderr), done.stderr


ROUTER = r"""
set -e
reach() { python3 -c '
import socket, sys, time
end = time.monotonic() + float(sys.argv[3])
while True:
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()
        sys.exit("open")
    except OSError:
        if time.monotonic() > end:
            sys.exit("closed")
        time.sleep(0.05)' "$@" 2>&1 || true; }
export -f reach
elsewhere() { unshare -n sleep 1000 >/dev/null 2>&1 & until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do :; done; }
elsewhere; neighbour=$!
elsewhere; container=$!
trap 'kill $neighbour $container $(jobs -p) 2>/dev/null' EXIT
in_n() { nsenter -t $neighbour -n bash -c "$@"; }
in_c() { nsenter -t $container -n bash -c "$@"; }
ip link set lo up
ip link add up0 type veth peer name eth0 netns $neighbour
ip link add br0 type bridge
ip link add port type veth peer name eth0 netns $container
ip link set port master br0
for i in up0 br0 port; do ip link set $i up; done
ip addr add 198.51.100.1/24 dev up0
ip addr add 172.18.0.1/24 dev br0
ip route add default via 198.51.100.2
in_n 'ip addr add 198.51.100.2/24 dev eth0; ip link set eth0 up; ip route add 172.18.0.0/24 via 198.51.100.1'
in_c 'ip addr add 172.18.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 172.18.0.1'
nsenter -t $neighbour -n python3 -m http.server 80 >/dev/null 2>&1 &
nsenter -t $container -n python3 -m http.server 80 >/dev/null 2>&1 &
echo 0 >/proc/sys/net/ipv4/ip_forward
"$@"
nft 'add table ip pub; add chain ip pub in { type nat hook prerouting priority dstnat; };
     add rule ip pub in tcp dport 8080 dnat to 172.18.0.2:80'
echo "routing: $(cat /proc/sys/net/ipv4/ip_forward)"
echo "container calls: $(in_c 'reach 198.51.100.2 80 30')"
echo "published: $(in_n 'reach 198.51.100.1 8080 30')"
echo "neighbour calls: $(in_n 'reach 172.18.0.2 80 0')"
nft list tables ip | grep -o 'spaced_.*' | xargs -n 1 nft delete table ip
echo "neighbour calls without the rules: $(in_n 'reach 172.18.0.2 80 30')"
"""


def test_routing_that_was_off_is_for_our_links_and_for_what_others_have_connected():
    """Docker that starts after us finds routing on, and its containers must reach the world; a neighbour of the host must not use it as
    a router."""
    command = [f"{BUILD}/sandbox", "run", "--egress", "internet", "--", "true"]
    done = subprocess.run(["unshare", "-n", "bash", "-c", ROUTER, "bash", *command], capture_output=True, text=True, timeout=200,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [
        "routing: 1", "container calls: open", "published: open", "neighbour calls: closed",
        "neighbour calls without the rules: open"], done.stdout + done.stderr
