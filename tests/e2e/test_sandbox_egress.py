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

PROBE = r"""
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
def rate(verb, host, count):
    # of the second half: the first one takes what a bucket had saved
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)  # what waits in it would count as sent
    s.connect((host, 80))
    s.sendall(b"%s %s\n" % (verb.encode(), count.encode()))
    count = int(count)
    done, began = 0, None
    while done < count:
        done += s.send(bytes(min(count - done, 65536))) if verb == "put" else len(s.recv(65536))
        if began is None and done >= count // 2:
            began, half = time.monotonic(), done
    if verb == "put":
        assert s.recv(2) == b"ok"
    return int((count - half) / (time.monotonic() - began))
for a in sys.argv[1:]:
    what, *words = a.split()
    print(a + ":", globals()[what](*words), flush=True)
"""


def run(mode, options, *probes, **env):
    """Output of the probes in a sandbox, {"reach ok.test 80": "open"}, and what the name server was asked."""
    command = [f"{BUILD}/sandbox", "run", *(["--rootless"] if mode == "rootless" else []), *options, "--", "python3", "-c",
               PROBE, *probes]
    shell = '"$@"; status=$?; echo "== $(tr "\\n" " " <$FAKE_INTERNET/queries)"; ' \
            'pgrep -l -r R,S,D "spaced-|sandbox|slirp4netns"; exit $status'
    done = subprocess.run([str(ROOT / "tests/fake_internet"), "sh", "-c", shell, "sh", *command], capture_output=True,
                          text=True, timeout=120, check=False, env={**os.environ, **env})
    assert done.returncode == 0, done.stdout + done.stderr
    text, asked = done.stdout.split("== ", 1)
    asked, _, left = asked.partition("\n")
    assert not left, "left behind: " + left
    return dict(line.split(": ", 1) for line in text.splitlines()), asked


@pytest.fixture(params=["root", "rootless"])
def mode(request):
    return request.param


FORBIDDEN = [f"reach {address} 80" for address in ("203.0.113.1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.127.0.1",
                                                   "169.254.169.254", "168.63.129.16")]
INSIDE_ONLY = ["reach 10.0.2.2 80", "udp 10.0.2.2 53", "udp 127.0.0.1 53"]  # names of the host that exist only inside


def test_forbidden_is_reachable_outside():
    """The positive control: the host itself reaches all of it."""
    done = subprocess.run([str(ROOT / "tests/fake_internet"), "python3", "-c", PROBE, *FORBIDDEN], capture_output=True,
                          text=True, timeout=60, check=True)
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
    got, asked = run(mode, ["--egress", f"list:{names}"], "reach 198.51.100.10 80", "resolve ok.test", "reach 198.51.100.10 80",
                     "reach 198.51.100.10 81", "resolve other.test", "reach 198.51.100.11 80", "resolve x.ok.test",
                     "resolve a.below.test", "reach 198.51.100.12 80", "resolve below.test", "resolve no.below.test",
                     "resolve OK.TEST", "resolve alias.test", "reach alias.test 81", "resolve private.test", "resolve mixed.test",
                     "resolve alias-private.test", "resolve metadata.test", "reach 203.0.113.2 81", "reach 203.0.113.2 80",
                     "reach 203.0.113.1 81", "udp 198.51.100.53 53", "udp 10.0.2.3 53", *FORBIDDEN,
                     *INSIDE_ONLY)
    expected = {
        "reach 198.51.100.10 80": "open",  # by now; the first time it was not resolved yet, see below
        "resolve ok.test": "198.51.100.10", "reach 198.51.100.10 81": "closed", "resolve other.test": "nothing",
        "reach 198.51.100.11 80": "closed", "resolve x.ok.test": "nothing", "resolve a.below.test": "198.51.100.12",
        "reach 198.51.100.12 80": "open", "resolve below.test": "nothing", "resolve no.below.test": "nothing",
        "resolve OK.TEST": "198.51.100.10", "resolve alias.test": "198.51.100.10", "reach alias.test 81": "open",
        "resolve private.test": "nothing", "resolve mixed.test": "198.51.100.12", "resolve alias-private.test": "nothing",
        "resolve metadata.test": "nothing", "reach 203.0.113.2 81": "open", "reach 203.0.113.2 80": "closed",
        "reach 203.0.113.1 81": "closed", "udp 198.51.100.53 53": "closed", "udp 10.0.2.3 53": "answered",
        **{probe: "closed" for probe in FORBIDDEN + INSIDE_ONLY}}
    assert got == expected
    # a name that is not listed never leaves the host: no tunnel
    assert {word.split(".test")[0] for word in asked.split() if ".test" in word} == {
        "ok", "a.below", "no.below", "alias", "private", "mixed", "alias-private"}


def test_list_before_resolving(mode, names):
    """An address is reachable because its name was resolved, not otherwise; an empty list is one."""
    got, asked = run(mode, ["--egress", f"list:{names}"], "reach 198.51.100.10 80", "reach 198.51.100.12 81")
    assert got == {"reach 198.51.100.10 80": "closed", "reach 198.51.100.12 81": "closed"}
    names.write_text("")
    got, asked = run(mode, ["--egress", f"list:{names}"], "reach 198.51.100.10 80", "resolve ok.test", "udp 10.0.2.3 53")
    assert got == {"reach 198.51.100.10 80": "closed", "resolve ok.test": "nothing", "udp 10.0.2.3 53": "answered"}
    assert asked.strip() == ""


def test_internet(mode):
    got, _ = run(mode, ["--egress", "internet"], "resolve ok.test", "reach ok.test 80", "reach 198.51.100.11 81",
                 "reach 203.0.113.2 80", "reach private.test 80", *FORBIDDEN, *INSIDE_ONLY)
    assert got == {"resolve ok.test": "198.51.100.10", "reach ok.test 80": "open", "reach 198.51.100.11 81": "open",
                   "reach 203.0.113.2 80": "open", "reach private.test 80": "closed",
                   **{probe: "closed" for probe in FORBIDDEN + INSIDE_ONLY}}


def test_stub_resolver(mode, names):
    """The host's resolv.conf names its own loopback: names resolve, and nothing else of that loopback is reachable."""
    for policy in ("internet", f"list:{names}"):
        got, _ = run(mode, ["--egress", policy], "resolve ok.test", "reach ok.test 80", "udp 127.0.0.53 53", "udp 10.0.2.2 53",
                     FAKE_STUB="1")
        assert got == {"resolve ok.test": "198.51.100.10", "reach ok.test 80": "open", "udp 127.0.0.53 53": "closed",
                       "udp 10.0.2.2 53": "closed"}


def test_none(mode):
    got, asked = run(mode, ["--egress", "none"], "resolve ok.test", "reach 198.51.100.10 80", "udp 198.51.100.53 53")
    assert got == {"resolve ok.test": "nothing", "reach 198.51.100.10 80": "closed", "udp 198.51.100.53 53": "closed"}
    assert asked.strip() == ""


def test_bandwidth(mode):
    """Each way: near its limit, never above; without a limit far above."""
    limit = 1 << 20
    probes = [f"rate get 198.51.100.10 {4 * limit}", f"rate put 198.51.100.10 {4 * limit}"]
    capped, _ = run(mode, ["--egress", "internet", "--bandwidth", str(limit)], *probes)
    free, _ = run(mode, ["--egress", "internet"], *probes)
    for probe in probes:
        print(probe, int(capped[probe]) / limit, int(free[probe]) / limit)
        assert int(capped[probe]) <= 1.2 * limit
        assert int(capped[probe]) >= 0.3 * limit
        assert int(free[probe]) >= 4 * limit


def test_bad_lists_are_refused(tmp_path):
    for text, why in [("10.0.0.0/8\n", "never reachable"), ("ok.test\n[2001:db8::1]\n", "line 2"), ("a b\n", "neither")]:
        (tmp_path / "names").write_text(text)
        done = subprocess.run([f"{BUILD}/sandbox", "run", "--egress", f"list:{tmp_path}/names", "--", "true"],
                              capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 125 and re.search(why, done.stderr), done.stderr
