"""Base images: made for real from the host's Debian mirror, a Space moved onto one, and what is left when making one ends early.

Needs a mirror that apt can reach (`needs_mirror`): one minimal base is made, which takes about half a minute."""
import ctypes
import mmap
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from apps import server
from harness import BUILD, Repo, wait_for

BODY = """json.dumps({
    "release": open("/etc/os-release").read(), "python": sys.version.split()[0],
    "passwd": open("/etc/passwd").read(), "ca": os.path.getsize("/etc/ssl/certs/ca-certificates.crt"),
    "manuals": os.path.isdir("/usr/share/man/man1") and len(os.listdir("/usr/share/man/man1")),
    "figlet": os.path.exists("/usr/bin/figlet"), "cold": len(open(self.path, "rb").read()) if self.path != "/" else 0,
}).encode()"""
APP = {"README.md": "---\ntitle: base\n---\n", "requirements.txt": "", "app.py": server(body=BODY)}


def cold_file():
    """A large file below /usr that is the standard library's in any Python 3: read by whom we ask only."""
    return next(Path("/usr/lib").glob("python3.*/pydoc_data/topics.py"))


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """The needs_mirror tests are skipped when apt itself cannot fetch its release file."""
    lists = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"],
                           capture_output=True, text=True).stdout.split("\n")
    rows = [row.split() for row in lists if row.strip()]
    if not rows:
        pytest.skip("apt knows no mirror on this machine")
    target = tmp_path_factory.mktemp("mirror") / "InRelease"
    for uri, release in rows:
        done = subprocess.run(["/usr/lib/apt/apt-helper", "download-file", f"{uri}dists/{release}/InRelease", str(target)],
                              capture_output=True, text=True, timeout=120)
        if done.returncode == 0:
            return uri
    pytest.skip("no Debian mirror can be reached")


@pytest.fixture(scope="module")
def on_base(mirror):
    """A daemon of its own with one base, `mini`, made while it runs."""
    from harness import Spaced

    daemon = Spaced()
    try:
        daemon.start()
        assert "on the host's /usr" in daemon.log_path.read_text()
        code, out, err = daemon.spacectl("base", "create", "mini", "--variant", "minimal", timeout=900)
        assert code == 0, err
        assert "installing" in err and "making the image" in err and "base mini is ready" in out
        yield daemon
    finally:
        daemon.close()


def is_cached(path):
    """Pages of a file in the host's page cache, by mincore(2)."""
    size = os.path.getsize(path)
    with open(path, "rb") as f, mmap.mmap(f.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as m:
        pages = (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE
        vec = (ctypes.c_ubyte * pages)()
        address = ctypes.addressof(ctypes.c_char.from_buffer(m))
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), vec) == 0
        return sum(v & 1 for v in vec)


def evict(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def reads_into_hosts_cache(daemon, name):
    """The app reads a file of its /usr: are the pages of the host's file of that name in memory then?"""
    path = cold_file()
    wait_for("the file to leave the page cache", lambda: evict(path) or is_cached(path) == 0)
    answer = daemon.get_ok("alice", name, str(path)).json()
    assert answer["cold"] > 100_000
    return is_cached(path) > 0


def image(daemon, name):
    return sorted((daemon.state / "volumes").glob(f"base-{name}-*.img"))


@pytest.mark.deadline(900)
def test_made_and_listed(on_base):
    row, = on_base.ctl_json("base", "list")
    assert row["name"] == "mini" and row["variant"] == "minimal" and row["default"] is False
    assert row["tools"]["python"].startswith("3.") and row["tools"]["apt"] and not row["tools"]["node"]
    assert row["tools"]["uv"] == os.path.exists("/usr/local/bin/uv")
    assert row["bytes"] == image(on_base, "mini")[0].stat().st_blocks * 512 > 50 << 20
    assert "mini" in on_base.spacectl("base", "list")[1]
    assert on_base.spacectl("base", "default")[1].strip() == "host"
    # nothing of the work is left, nothing is mounted where the host could see it
    assert not (on_base.state / "volumes/.base-making.img").exists()
    assert "base-" not in Path("/proc/self/mounts").read_text()


@pytest.mark.deadline(600)
def test_a_space_moves_onto_it(on_base, tmp_path):
    work = Repo(tmp_path / "app", files=APP)
    on_base.push_ok(work, "alice", "mover")
    assert reads_into_hosts_cache(on_base, "mover"), "positive control: on the host's /usr the page cache is shared"
    code, out, _ = on_base.spacectl("space", "base", "alice/mover", "mini")
    assert code == 0 and "space restart" in out
    assert on_base.show("alice", "mover")["spaced"]["standsOn"] == "host", "it moves with its next build"
    on_base.spacectl("space", "restart", "alice/mover", check=True)

    def moved():
        shown = on_base.show("alice", "mover")
        return shown["spaced"]["standsOn"].startswith("mini-") and shown["runtime"]["stage"] == "RUNNING"

    wait_for("the Space to run on the base", moved, 120)
    log = on_base.logs("alice", "mover", build=True)
    assert "on the base mini-" in log and "dependencies CACHED" not in log, "nothing installed for the host's Python fits"
    after = on_base.get_ok("alice", "mover").json()
    assert "debian" in after["release"].lower()
    assert after["python"].startswith(on_base.ctl_json("base", "show", "mini")["tools"]["python"])
    assert "\nuser:x:1000:" in after["passwd"] and after["ca"] > 100_000
    assert after["manuals"] in (0, False)
    assert not reads_into_hosts_cache(on_base, "mover"), "an app on a base shares no cached page with the host"
    # a plain restart stays: nothing has changed
    builds = len(on_base.ctl_json("build", "list", "alice/mover"))
    on_base.spacectl("space", "restart", "alice/mover", check=True)
    on_base.wait_stage("alice", "mover", "RUNNING")
    assert len(on_base.ctl_json("build", "list", "alice/mover")) == builds


@pytest.mark.deadline(600)
def test_packages_are_installed_on_it(on_base, tmp_path):
    on_base.push_ok(Repo(tmp_path / "empty", files={"README.md": "---\nsdk: static\n---\n", "index.html": "x"}), "alice", "pk")
    on_base.spacectl("space", "base", "alice/pk", "mini", check=True)
    on_base.push_ok(Repo(tmp_path / "app", files={**APP, "packages.txt": "figlet\n"}), "alice", "pk", "+main")
    assert on_base.get_ok("alice", "pk").json()["figlet"]
    assert on_base.show("alice", "pk")["spaced"]["standsOn"].startswith("mini-")
    assert not os.path.exists("/usr/bin/figlet")


@pytest.mark.deadline(600)
def test_default_versions_and_removal(on_base, tmp_path):
    """In one: what refuses a removal is taken away piece by piece."""
    on_base.push_ok(Repo(tmp_path / "app", files=APP), "alice", "user")
    assert on_base.show("alice", "user")["spaced"]["standsOn"] == "host"
    on_base.spacectl("base", "default", "mini", check=True)
    assert on_base.ctl_json("base", "show", "mini")["default"] is True
    on_base.spacectl("space", "restart", "alice/user", check=True)
    wait_for("the default to be taken", lambda: on_base.show("alice", "user")["spaced"]["standsOn"].startswith("mini-"), 120)
    on_base.wait_stage("alice", "user", "RUNNING")

    code, _, err = on_base.spacectl("base", "remove", "mini")
    assert code == 1 and "default" in err
    on_base.spacectl("base", "default", "host", check=True)
    code, _, err = on_base.spacectl("base", "remove", "mini")
    assert code == 1 and "in use by alice/" in err
    assert on_base.spacectl("base", "remove", "nothing")[0] == 1
    assert on_base.spacectl("base", "default", "nothing")[0] == 1
    assert on_base.spacectl("space", "base", "alice/user", "nothing")[0] == 1

    # made again under its name: a newer version, all at once, when it is whole; what runs keeps the old one, a restart takes it
    old, = image(on_base, "mini")
    before = old.stat()
    again = making(on_base.state, "mini")
    try:
        code, _, err = on_base.spacectl("base", "create", "mini", "--variant", "minimal")
        assert code == 1 and "another base is being made" in err
        assert on_base.spacectl("base", "default", "mini")[0] == 1, "nor is another default chosen meanwhile"
        while again.poll() is None:
            assert on_base.get_ok("alice", "user").json()["manuals"] in (0, False)
            shown = on_base.ctl_json("base", "show", "mini")["id"]
            assert (on_base.state / f"volumes/base-{shown}.img").exists(), "what is listed is there"
            time.sleep(0.2)
        assert again.returncode == 0, again.stdout.read()
    finally:
        again.kill()
        again.communicate()
    kept, new = image(on_base, "mini")
    assert kept == old and old.stat().st_ino == before.st_ino
    new_id = new.stem[5:]
    assert on_base.ctl_json("base", "show", "mini")["id"] == new_id
    on_base.spacectl("space", "base", "alice/user", "mini", check=True)
    assert on_base.show("alice", "user")["spaced"]["standsOn"] == old.stem[5:]
    on_base.spacectl("space", "restart", "alice/user", check=True)
    wait_for("the newer version", lambda: on_base.show("alice", "user")["spaced"]["standsOn"] == new_id, 120)
    on_base.wait_stage("alice", "user", "RUNNING")
    assert old.exists(), "other releases stand on it"

    for space in on_base.ctl_json("space", "list"):
        on_base.spacectl("space", "delete", "--yes", space["id"], check=True)
    # what is being deleted still runs for a moment
    wait_for("nobody to stand on it", lambda: on_base.spacectl("base", "remove", "mini")[0] == 0, 120, 0.2)
    assert on_base.ctl_json("base", "list") == []
    wait_for("the images to be gone", lambda: not image(on_base, "mini"))
    assert not list((on_base.state / "bases").glob("*.json"))


def loops_of(state):
    found = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if str(state) in file.read_text():
                found.append(file)
        except OSError:
            continue
    return found


def making(state, name="early"):
    """`base create` of a base that is being installed right now."""
    process = subprocess.Popen([str(BUILD / "spacectl"), "--state", str(state), "base", "create", name, "--variant", "minimal"],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    image_file = state / "volumes/.base-making.img"

    def half_way():
        assert process.poll() is None, process.stdout.read()
        return image_file.exists() and image_file.stat().st_blocks * 512 > 20 << 20

    wait_for("files in the image", half_way, 120)
    return process


def descendants(pid):
    """Many of them end at any moment."""
    try:
        found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return found + [d for child in found for d in descendants(child)]


@pytest.mark.deadline(400)
@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_interrupted(mirror, tmp_path, sig):
    process = making(tmp_path)
    below = descendants(process.pid)
    assert below
    process.send_signal(sig)
    out, _ = process.communicate(timeout=60)
    wait_for("all that it started to be gone", lambda: not any(os.path.exists(f"/proc/{pid}") for pid in below))
    wait_for("its loop device to be free", lambda: not loops_of(tmp_path))
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    assert subprocess.run([str(BUILD / "spacectl"), "--json", "--state", str(tmp_path), "base", "list"], text=True,
                          capture_output=True).stdout.strip() == "[]"
    if sig != signal.SIGKILL:
        assert process.returncode == 1 and "interrupted" in out
        assert not (tmp_path / "volumes/.base-making.img").exists()
        return
    # what a kill leaves is swept away by the next one made, also when that one fails
    assert (tmp_path / "volumes/.base-making.img").exists()
    done = subprocess.run([str(BUILD / "spacectl"), "--state", str(tmp_path), "base", "create", "next", "--mirror",
                           "http://127.0.0.1:9/debian"], text=True, capture_output=True, timeout=120)
    assert done.returncode == 1 and "installation failed" in done.stderr and "127.0.0.1" in done.stderr
    assert not list((tmp_path / "volumes").glob("*.img")) and not list((tmp_path / "volumes").glob(".base*"))


def test_wrong_words(tmp_path):
    def create(*args):
        done = subprocess.run([str(BUILD / "spacectl"), "--state", str(tmp_path), "base", "create", *args], text=True,
                              capture_output=True, timeout=30)
        return done.returncode, done.stderr

    assert create("host")[0] == 2
    assert create("../x")[0] == 2
    for args, word in [(("x", "--variant", "huge"), "full nor minimal"), (("x", "--suite", "-o"), "name of a release"),
                       (("x", "--packages", "a,--b"), "name of a package"), (("x", "--mirror", "nothing"), "no URL")]:
        code, err = create(*args)
        assert code == 1 and word in err, err
    assert not list(tmp_path.rglob("*.img"))


def test_usr_has_inodes_of_its_own():
    """Battery E10, on the host's own /usr: neither inotify nor flock reaches from a sandbox to the host or a neighbour."""
    spy = """
import ctypes, fcntl, os, select, sys
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.inotify_init1(os.O_NONBLOCK)
for path in (b"/usr/bin/env", b"/usr/bin"):
    assert libc.inotify_add_watch(fd, path, 0xfff) > 0
lock = open("/usr/bin/env", "rb")
def seen():
    if select.select([fd], [], [], 0)[0]:
        os.read(fd, 65536)
        return True
    return False
fcntl.flock(lock, fcntl.LOCK_EX)
assert seen(), "positive control: its own open shows"
try:
    fcntl.flock(open("/usr/bin/env", "rb"), fcntl.LOCK_EX | fcntl.LOCK_NB)
    sys.exit("positive control: its own lock is no lock")
except BlockingIOError:
    pass
seen()
print("ready", flush=True)
sys.stdin.readline()
print("seen" if seen() else "nothing", flush=True)
"""
    take = "import fcntl; fcntl.flock(open('/usr/bin/env', 'rb'), fcntl.LOCK_EX | fcntl.LOCK_NB); print('free')"
    process = subprocess.Popen([str(BUILD / "sandbox"), "run", "--", "/usr/bin/python3", "-c", spy], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == "ready\n"
        outside = subprocess.run(["/usr/bin/python3", "-c", take], text=True, capture_output=True)
        assert outside.stdout == "free\n", f"the host's own lock has to wait for an app: {outside.stderr}"
        beside = subprocess.run([str(BUILD / "sandbox"), "run", "--", "/usr/bin/python3", "-c", take], text=True,
                                capture_output=True)
        assert beside.stdout == "free\n", f"a neighbour's lock has to wait: {beside.stderr}"
        process.stdin.write("now\n")
        process.stdin.flush()
        assert process.stdout.readline() == "nothing\n", "an app saw what the host and a neighbour open"
    finally:
        process.terminate()  # not a kill, after which nobody would remove its cgroup
        process.wait(60)


@pytest.mark.deadline(300)
def test_sandbox_on_a_tree(tmp_path):
    """`sandbox run --base DIR`, with a tree small enough to be made here: the files of one static program."""
    for folder in ("usr/bin", "etc"):
        (tmp_path / "tree" / folder).mkdir(parents=True)
    busybox = next((p for p in ("/bin/busybox", "/usr/bin/busybox") if os.path.exists(p)), None)
    if not busybox or "INTERP" in subprocess.run(["readelf", "-lW", busybox], capture_output=True, text=True, check=True).stdout:
        pytest.skip("no static busybox on this machine")
    tree = tmp_path / "tree"
    (tree / "usr/bin/busybox").write_bytes(Path(busybox).read_bytes())
    (tree / "usr/bin/busybox").chmod(0o755)
    (tree / "bin").symlink_to("usr/bin")
    (tree / "etc/mime.types").write_text("own\n")
    (tree / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nown:x:7:7::/:/bin/sh\n")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    done = subprocess.run([str(BUILD / "sandbox"), "run", "--base", str(tree), "--", "/usr/bin/busybox", "sh", "-c",
                           "/bin/busybox cat /etc/mime.types /etc/passwd; /bin/busybox ls /usr/bin"], text=True,
                          capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("own\n") and "own:x:7:" in done.stdout and "user:x:1000:" in done.stdout
    assert done.stdout.endswith("\nbusybox\n")
