"""Receiving and serving with real git; then every trap that a hand-made push can hold."""
import fcntl
import gzip
import os
import signal
import socket
import subprocess
import threading
import time
import zlib
from pathlib import Path

import pytest

import gitraw
from gitraw import ZERO, Pack, commit, tree
from harness import Repo, Spaced, processes, wait_for
from proxyraw import PATIENCE, Peer

PAGE = {"README.md": "---\nsdk: static\n---\n", "index.html": "<h1>hi</h1>\n"}
SMALL = dict(push_object_size="1M", push_inflated_size="8M", push_objects="5000", push_refs="20", push_pack_size="3M",
             push_tree_depth="20", push_path_length="400", checkout_files="1000")


@pytest.fixture(scope="module")
def small():
    """A daemon with small limits, so that the bombs of these tests stay small too."""
    daemon = Spaced(**SMALL)
    try:
        yield daemon.start()
    finally:
        daemon.close()


def git(*args, cwd=None, check=True, env=None):
    done = subprocess.run(["git", *args], cwd=cwd, text=True, capture_output=True, timeout=120,
                          env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0", **(env or {})})
    assert not check or done.returncode == 0, done.stderr
    return done


def refs(daemon, owner, name):
    out = git("ls-remote", daemon.remote(owner, name)).stdout
    return {ref: oid for oid, ref in (line.split("\t") for line in out.splitlines())}


def server_repo(daemon, oid):
    """The folder of the repository that has this tip."""
    for packed in (daemon.state / "repos").glob("*.git/packed-refs"):
        if oid in packed.read_text():
            return packed.parent
    raise AssertionError(f"no repository has {oid}")


def leftovers(folder):
    found = [Path(where) / name for where, folders, files in os.walk(folder) for name in folders + files]  # some go meanwhile
    return [str(p.relative_to(folder)) for p in found
            if "quarantine" in p.name or p.name.endswith(".lock") and p.name != "spaced.lock" or p.name.startswith("pack_")
            or p.suffix == ".pack" and not p.with_suffix(".idx").exists()]


# --- stock git, as people use it

def test_branches_tags_force_and_delete(spaced, repo):
    r = repo(files=PAGE)
    spaced.push_ok(r, "alice", "life")
    first = r.head()
    r.commit("second", {"a.txt": "2"})
    r.git("tag", "-a", "v1", "-m", "one")
    spaced.push_ok(r, "alice", "life", "main:dev", "-o", "nowait")
    spaced.push_ok(r, "alice", "life", "v1", "-o", "nowait")
    assert refs(spaced, "alice", "life") == {"HEAD": first, "refs/heads/main": first, "refs/heads/dev": r.head(),
                                             "refs/tags/v1": r.git("rev-parse", "v1"), "refs/tags/v1^{}": r.head()}
    # not a fast-forward: git itself refuses, -f does it
    r.git("reset", "-q", "--hard", first)
    other = r.commit("other", {"b.txt": "3"})
    assert spaced.push(r, "alice", "life", "main:dev").returncode != 0
    spaced.push_ok(r, "alice", "life", "main:dev", "-f")
    assert refs(spaced, "alice", "life")["refs/heads/dev"] == other
    spaced.push_ok(r, "alice", "life", ":dev")
    assert "refs/heads/dev" not in refs(spaced, "alice", "life")
    done = spaced.push(r, "alice", "life", ":main")
    assert done.returncode != 0 and "default branch cannot be deleted" in done.stdout
    assert "HEAD" in refs(spaced, "alice", "life")


def test_atomic_is_all_or_nothing(spaced, repo):
    r = repo(files=PAGE)
    url = spaced.remote("alice", "atomic")
    r.git("push", url, "main:side")
    done = git("push", "--atomic", url, "main:one", "main:one/two", cwd=r.path, check=False, env=r.env)
    assert done.returncode != 0 and "directory/file conflict" in done.stderr
    assert refs(spaced, "alice", "atomic").keys() == {"refs/heads/side"}
    done = git("push", url, "main:one", "main:one/two", cwd=r.path, check=False, env=r.env)
    assert done.returncode != 0
    assert refs(spaced, "alice", "atomic").keys() == {"refs/heads/side", "refs/heads/one"}
    git("push", "--atomic", url, ":one", "main:one/two", cwd=r.path, env=r.env)
    assert refs(spaced, "alice", "atomic").keys() == {"refs/heads/side", "refs/heads/one/two"}


def test_refs_outside_heads_and_tags(spaced, repo):
    r = repo(files=PAGE)
    spaced.push_ok(r, "alice", "outside", "main:side")
    for ref in ("refs/pull/1/head", "refs/notes/x", "refs/spaced/x"):
        done = spaced.push(r, "alice", "outside", f"main:{ref}")
        assert done.returncode != 0 and "only refs/heads/ and refs/tags/" in done.stdout
    assert refs(spaced, "alice", "outside").keys() == {"refs/heads/side"}


def test_thin_pack(spaced, repo):
    lines = [f"line {i} {zlib.crc32(str(i).encode())}\n" for i in range(5000)]
    r = repo(files={**PAGE, "big.txt": "".join(lines)})
    spaced.push_ok(r, "alice", "thin", "main:side")
    lines[2500] = "changed\n"
    r.commit("small change", {"big.txt": "".join(lines)})
    spaced.push_ok(r, "alice", "thin", "main:side", "--thin")
    packs = list((server_repo(spaced, r.head()) / "objects/pack").glob("*.pack"))
    assert len(packs) == 2
    git("clone", "-q", "-b", "side", spaced.remote("alice", "thin"), str(r.path.parent / "clone"))
    assert (r.path.parent / "clone" / "big.txt").read_text() == "".join(lines)
    assert git("-c", "safe.directory=*", "fsck", "--strict", cwd=packs[0].parents[2]).stdout == ""


@pytest.mark.parametrize("buffer", ["1000", "200000000"])
def test_chunked_and_whole_bodies(spaced, repo, buffer):
    """A small http.postBuffer makes git send chunked, after a probe; a big one Content-Length."""
    r = repo(files={**PAGE, "noise": os.urandom(3 << 20)})
    git("-c", f"http.postBuffer={buffer}", "push", spaced.remote("alice", f"body-{buffer}"), "main:side", cwd=r.path,
        env=r.env)
    assert refs(spaced, "alice", f"body-{buffer}")["refs/heads/side"] == r.head()


def test_expect_100_continue(spaced, repo):
    r = repo(files={**PAGE, "noise": os.urandom(2 << 20)})
    git("-c", "http.postBuffer=1000", "-c", "http.extraHeader=Expect: 100-continue", "push",
        spaced.remote("alice", "expect-git"), "main:side", cwd=r.path, env=r.env)
    assert refs(spaced, "alice", "expect-git")["refs/heads/side"] == r.head()
    tip, pack = big_push()
    body = gitraw.commands([(ZERO, tip, "refs/heads/side")]) + pack
    with send_part(spaced, "alice", "expect", body, 0, {"Expect": "100-continue"}) as s:
        peer = Peer(s)
        assert peer.message(head_only=True).status == 100
        peer.send(body)
        assert peer.message(head_only=True).status == 200
    wait_for("the ref", lambda: refs(spaced, "alice", "expect").get("refs/heads/side") == tip)


def test_gzip_body(spaced):
    pack = Pack()
    tip = pack.add("commit", commit(pack.add("tree", b"")))
    body = gzip.compress(gitraw.commands([(ZERO, tip, "refs/heads/gz")]) + pack.bytes())
    done = gitraw.post(spaced, "alice", "gzip", body, headers={"Content-Encoding": "gzip"})
    assert "unpack ok" in done.report and "ok refs/heads/gz" in done.report, done
    assert refs(spaced, "alice", "gzip")["refs/heads/gz"] == tip


def test_client_without_side_band(spaced):
    pack = Pack()
    tip = pack.add("commit", commit(pack.add("tree", b"")))
    body = gitraw.commands([(ZERO, tip, "refs/heads/plain")], caps="report-status") + pack.bytes()
    done = gitraw.post(spaced, "alice", "plain", body)
    assert done.body == gitraw.pkt("unpack ok\n") + gitraw.pkt("ok refs/heads/plain\n") + b"0000"


@pytest.mark.parametrize("version", ["0", "1", "2"])
def test_clone_shallow_and_partial(spaced, repo, version, tmp_path):
    r = repo(files=PAGE)
    for i in range(3):
        r.commit(f"c{i}", {"f": str(i)})
    spaced.push_ok(r, "alice", f"clone{version}", "main", "-o", "nowait")
    url = spaced.remote("alice", f"clone{version}")
    v = ["-c", f"protocol.version={version}"]
    git(*v, "clone", "-q", url, str(tmp_path / "full"))
    assert git("rev-parse", "HEAD", cwd=tmp_path / "full").stdout.strip() == r.head()
    git(*v, "clone", "-q", "--depth", "1", url, str(tmp_path / "shallow"))
    assert git("rev-list", "--count", "HEAD", cwd=tmp_path / "shallow").stdout.strip() == "1"
    git(*v, "fetch", "-q", "--unshallow", cwd=tmp_path / "shallow")
    assert git("rev-list", "--count", "HEAD", cwd=tmp_path / "shallow").stdout.strip() == "4"
    git(*v, "clone", "-q", "--bare", "--filter=blob:none", url, str(tmp_path / "partial"))
    objects = git("cat-file", "--batch-all-objects", "--batch-check=%(objecttype)", cwd=tmp_path / "partial").stdout
    assert "commit" in objects and "blob" not in objects


def test_push_from_a_shallow_clone(spaced, repo, tmp_path):
    r = repo(files=PAGE)
    r.commit("more", {"f": "1"})
    spaced.push_ok(r, "alice", "shallow", "main", "-o", "nowait")
    url = spaced.remote("alice", "shallow")
    git("clone", "-q", "--depth", "1", url, str(tmp_path / "s"))
    (tmp_path / "s/f").write_text("2")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "x", cwd=tmp_path / "s")
    git("push", url, "HEAD:refs/heads/from-shallow", cwd=tmp_path / "s")
    assert "refs/heads/from-shallow" in refs(spaced, "alice", "shallow")


def test_submodules_are_kept_and_not_fetched(spaced, repo, tmp_path):
    r = repo(files={**PAGE, ".gitmodules": '[submodule "m"]\n\tpath = m\n\turl = https://example.org/m.git\n'})
    r.git("update-index", "--add", "--cacheinfo", f"160000,{'a' * 40},m")
    r.git("commit", "-qm", "gitlink")
    spaced.push_ok(r, "alice", "gitlink", "main:side")
    git("clone", "-q", "-b", "side", spaced.remote("alice", "gitlink"), str(tmp_path / "c"))
    assert "160000 commit " + "a" * 40 in git("ls-tree", "HEAD", cwd=tmp_path / "c").stdout


def test_push_option_and_progress(spaced, repo):
    r = repo(files=PAGE)
    out = spaced.push_ok(r, "alice", "options", "main", "-o", "nowait", "-o", "unknown=thing")
    assert "main -> main" in out


# --- who may

def test_who_may_push_and_read(spaced, repo):
    r = repo(files=PAGE)
    spaced.push_ok(r, "alice", "mine", "main", "-o", "nowait")
    ask = spaced.request("GET", "/spaces/alice/mine/info/refs?service=git-receive-pack")
    assert ask.status == 401 and ask.headers["WWW-Authenticate"] == 'Basic realm="Spaced"'
    wrong = spaced.request("GET", "/spaces/alice/mine/info/refs?service=git-receive-pack",
                           headers=gitraw.auth("alice", "hf_wrong"))
    assert wrong.status == 401
    mallory = gitraw.auth("mallory", spaced.token("mallory"))
    forbidden = spaced.request("GET", "/spaces/alice/mine/info/refs?service=git-receive-pack", headers=mallory)
    assert forbidden.status == 403 and forbidden.text.strip()
    done = gitraw.push(spaced, "alice", "mine", [(r.head(), ZERO, "refs/heads/main")], user="mallory")
    assert done.status == 403
    assert spaced.push(r, "alice", "stolen", "main", user="mallory").returncode != 0
    # public: anybody reads; a missing one and somebody else's cannot be told apart for a writer
    assert git("ls-remote", f"{spaced.url}/spaces/alice/mine").stdout
    assert spaced.request("GET", "/spaces/alice/nothing/info/refs?service=git-upload-pack").status in (401, 404)
    assert "no-cache" in spaced.request("GET", "/spaces/alice/mine/info/refs?service=git-upload-pack").headers["Cache-Control"]


def test_nothing_is_made_by_asking(spaced):
    """info/refs and the probe before a big push create no Space."""
    me = gitraw.auth("alice", spaced.token("alice"))
    asked = spaced.request("GET", "/spaces/alice/only-asked/info/refs?service=git-receive-pack", headers=me)
    assert asked.status == 200 and b"capabilities^{}\0" in asked.body
    assert gitraw.post(spaced, "alice", "only-asked", b"0000").status == 200
    assert spaced.request("GET", "/spaces/alice/only-asked/info/refs?service=git-upload-pack", headers=me).status == 404


@pytest.mark.parametrize("path", ["/spaces/alice/../alice/x", "/spaces/alice/%2e%2e/x", "/spaces/alice/..%2fx",
                                  "/spaces/alice/-x", "/spaces/-alice/x", "/spaces/alice/.x", "/spaces/alice/x.git.git",
                                  "/spaces/alice/a..b", "/spaces/alice/x%00", "/spaces/alice/a%2fb", "/spaces//x",
                                  "/spaces/alice/" + "x" * 97])
def test_bad_names(spaced, path):
    before = sorted(p.name for p in (spaced.state / "repos").iterdir())
    for service in ("git-upload-pack", "git-receive-pack"):
        answer = spaced.request("GET", f"{path}/info/refs?service={service}",
                                headers=gitraw.auth("alice", spaced.token("alice")))
        assert answer.status in (400, 401, 403, 404), answer.status
    assert sorted(p.name for p in (spaced.state / "repos").iterdir()) == before


def test_dumb_protocol_and_other_files_are_not_served(spaced, repo):
    spaced.push_ok(repo(files=PAGE), "alice", "dumb", "main", "-o", "nowait")
    assert spaced.request("GET", "/spaces/alice/dumb/info/refs").status == 403
    for path in ("HEAD", "objects/info/packs", "config", "packed-refs", "git-upload-archive"):
        assert spaced.request("GET", f"/spaces/alice/dumb.git/{path}").status == 404


# --- races and deaths

def test_of_racing_pushes_exactly_one_wins(spaced):
    pack = Pack()
    empty = pack.add("tree", b"")
    base = pack.add("commit", commit(empty))
    gitraw.push(spaced, "alice", "race", [(ZERO, base, "refs/heads/r")], pack.bytes())
    tip = base
    for round_ in range(6):
        tries, results = [], []
        for i in range(3):
            p = Pack()
            blob = p.add("blob", f"{round_} {i}".encode())
            new = p.add("commit", commit(p.add("tree", tree(("100644", "f", blob))), [tip]))
            tries.append((new, p.bytes()))
        barrier = threading.Barrier(len(tries))

        def go(new, data):
            barrier.wait()
            results.append((new, gitraw.push(spaced, "alice", "race", [(tip, new, "refs/heads/r")], data)))

        threads = [threading.Thread(target=go, args=t) for t in tries]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        won = [new for new, done in results if "ok refs/heads/r" in done.report]
        lost = [done.report for _, done in results if "ng refs/heads/r stale info" in done.report]
        assert len(won) == 1 and len(lost) == 2, results
        assert refs(spaced, "alice", "race")["refs/heads/r"] == won[0]
        tip = won[0]


def big_push(tip_parent=None, size=400_000):
    p = Pack()
    blob = p.add("blob", os.urandom(size))
    tip = p.add("commit", commit(p.add("tree", tree(("100644", "f", blob))), [tip_parent] if tip_parent else []))
    return tip, p.bytes()


def send_part(daemon, owner, name, body, part, headers=None):
    """Sends the head and `part` bytes of the body; the open socket."""
    s = socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE)
    head = {"Host": f"{daemon.domain}:{daemon.port}", "Content-Type": "application/x-git-receive-pack-request",
            "Content-Length": str(len(body)), **gitraw.auth(owner, daemon.token(owner)), **(headers or {})}
    s.sendall((f"POST /spaces/{owner}/{name}/git-receive-pack HTTP/1.1\r\n" +
               "".join(f"{k}: {v}\r\n" for k, v in head.items()) + "\r\n").encode() + body[:part])
    return s


def unpackers(daemon):
    return processes("unpack", str(daemon.state))


def push_and_end(daemon, name, updates, pack):
    """A push whose process is gone: it clears up behind its answer, and is not to be taken for that of the next push."""
    done = gitraw.push(daemon, "alice", name, updates, pack)
    wait_for("the process of that push to end", lambda: not unpackers(daemon))
    return done


@pytest.mark.parametrize("share", [0.0, 0.0002, 0.01, 0.5, 0.99])
def test_a_client_that_leaves(spaced, share):
    tip, pack = big_push()
    push_and_end(spaced, "leaver", [(ZERO, tip, f"refs/heads/s{int(share * 10000)}")], pack)
    folder = server_repo(spaced, tip)
    packs = len(list((folder / "objects/pack").glob("*.pack")))
    new, pack = big_push(tip)
    body = gitraw.commands([(ZERO, new, "refs/heads/never")]) + pack
    s = send_part(spaced, "alice", "leaver", body, int(len(body) * share))
    wait_for("the unpack process", lambda: unpackers(spaced))
    s.close()
    wait_for("it to end", lambda: not unpackers(spaced))
    assert leftovers(folder) == []
    assert len(list((folder / "objects/pack").glob("*.pack"))) == packs
    assert "refs/heads/never" not in refs(spaced, "alice", "leaver")


@pytest.mark.parametrize("share", [0.0002, 0.5, 0.99])
def test_kill_9_of_the_unpack_process(spaced, share):
    tip, pack = big_push()
    push_and_end(spaced, "killed", [(ZERO, tip, f"refs/heads/s{int(share * 10000)}")], pack)
    folder = server_repo(spaced, tip)
    new, pack = big_push(tip)
    body = gitraw.commands([(ZERO, new, "refs/heads/never")]) + pack
    s = send_part(spaced, "alice", "killed", body, int(len(body) * share))
    if share > 0.3:
        wait_for("the quarantine", lambda: list(folder.glob("quarantine-*/*")))
    for pid in wait_for("the unpack process", lambda: unpackers(spaced)):
        os.kill(pid, signal.SIGKILL)
    s.sendall(body[int(len(body) * share):])
    answer = Peer(s).message()
    s.close()
    assert answer.status == 200 and b"unpack ok" not in answer.body and b"refs/heads/never" not in answer.body
    assert "refs/heads/never" not in refs(spaced, "alice", "killed")
    # the next push clears what is left
    done = gitraw.push(spaced, "alice", "killed", [(ZERO, tip, f"refs/heads/again{int(share * 10000)}")], Pack().bytes())
    assert "unpack ok" in done.report
    done = gitraw.push(spaced, "alice", "killed", [(ZERO, new, f"refs/heads/now{int(share * 10000)}")], pack)
    assert "ok refs/heads/now" in done.report, done
    wait_for("no leftovers", lambda: leftovers(folder) == [])


def test_stale_locks_of_a_killed_push(spaced):
    """Killed while it replaced the refs: the mark in spaced.lock makes the next push remove git's lock file."""
    tip, pack = big_push()
    gitraw.push(spaced, "alice", "locks", [(ZERO, tip, "refs/heads/a")], pack)
    folder = server_repo(spaced, tip)
    (folder / "packed-refs.lock").write_text("half")
    (folder / "spaced.lock").write_text("w")
    (folder / "objects/pack/pack-0000000000000000000000000000000000000000.pack").write_text("orphan")
    (folder / "quarantine-dead").mkdir()
    (folder / "quarantine-dead/pack_x").write_text("orphan")
    for left in leftovers(folder):  # as control's user would have left them
        os.chown(folder / left, folder.stat().st_uid, folder.stat().st_gid)
    new, pack = big_push(tip)
    done = gitraw.push(spaced, "alice", "locks", [(tip, new, "refs/heads/a")], pack)
    assert "ok refs/heads/a" in done.report
    wait_for("no leftovers", lambda: leftovers(folder) == [])


def packs_of(folder):
    return list((folder / "objects/pack").glob("*.pack"))


def test_many_packs_become_one_while_people_push_and_clone(spaced, repo):
    r = repo(files={**PAGE, "big.txt": "".join(f"line {i} {zlib.crc32(str(i).encode())}\n" for i in range(3000))})
    url = spaced.remote("alice", "packs")
    spaced.push_ok(r, "alice", "packs", "main:side")
    folder = server_repo(spaced, r.head())
    tmp = folder / "objects/pack/tmp_pack_killed"  # of a git that was killed yesterday
    tmp.write_text("half")
    os.chown(tmp, folder.stat().st_uid, folder.stat().st_gid)
    os.utime(tmp, (time.time() - 86400,) * 2)
    # an object that no ref reaches any more stays: a push that is on its way may build on it
    r.git("checkout", "-q", "--orphan", "lost")
    lost = r.commit("lost", {"lost.txt": "lost"})
    spaced.push_ok(r, "alice", "packs", "lost")
    spaced.push_ok(r, "alice", "packs", ":lost")
    r.git("checkout", "-q", "main")
    for i in range(40):
        tip, pack = big_push(size=1000)
        gitraw.push(spaced, "alice", "packs", [(ZERO, tip, f"refs/heads/f{i}")], pack)
    stop = threading.Event()
    failed = []

    def clone_again_and_again():
        n = 0
        while not stop.is_set():
            n += 1
            done = git("clone", "-q", "-b", "side", url, str(r.path.parent / f"clone{n}"), check=False)
            if done.returncode:
                failed.append(done.stderr)

    reader = threading.Thread(target=clone_again_and_again)
    reader.start()
    most, pushed = 0, 42  # what was pushed before
    try:
        # until some have become one, while the pushes went on: when that begins and how long it takes is not ours
        for i in range(300):
            r.commit(f"change {i}", {"big.txt": (r.path / "big.txt").read_text().replace(f"line {i * 10} ", "changed ")})
            spaced.push_ok(r, "alice", "packs", "main:side", *(["--thin"] if i % 2 else []))
            pushed += 1
            if len(packs_of(folder)) < most:
                break
            most = len(packs_of(folder))
        wait_for("one pack in place of fifty", lambda: len(packs_of(folder)) <= pushed - 49)
        wait_for("the repack process to end", lambda: not processes("repack", str(spaced.state)), 60)
        wait_for("the pushes to have cleared up", lambda: not unpackers(spaced))
    finally:
        stop.set()
        reader.join()
    assert failed == [] and most >= 50
    assert refs(spaced, "alice", "packs")["refs/heads/side"] == r.head()
    assert leftovers(folder) == [] and not tmp.exists()
    assert git("-c", "safe.directory=*", "fsck", "--strict", "--no-dangling", cwd=folder).stdout == ""
    assert git("-c", "safe.directory=*", "cat-file", "-t", lost, cwd=folder).stdout == "commit\n"
    git("clone", "-q", "-b", "side", url, str(r.path.parent / "last"))
    assert (r.path.parent / "last" / "big.txt").read_text() == (r.path / "big.txt").read_text()
    for n in packs_of(folder):
        assert n.stat().st_uid == folder.stat().st_uid


def test_a_pack_without_index_is_not_ours_to_remove(spaced):
    """Only after a killed push: an operator's `git gc` puts the pack first and its index a moment later."""
    tip, pack = big_push()
    gitraw.push(spaced, "alice", "gc", [(ZERO, tip, "refs/heads/a")], pack)
    folder = server_repo(spaced, tip)
    half = folder / "objects/pack/pack-1111111111111111111111111111111111111111.pack"
    half.write_text("its index is being renamed")
    new, pack = big_push(tip)
    done = gitraw.push(spaced, "alice", "gc", [(tip, new, "refs/heads/a")], pack)
    assert "ok refs/heads/a" in done.report and half.exists()
    half.unlink()


def blocked_on_a_lock(pids):
    """Those that wait in flock(2)."""
    with open("/proc/locks") as f:
        waiting = {int(line.split()[5]) for line in f if "-> FLOCK" in line}
    return waiting & set(pids)


def push_held_at_the_lock(daemon, name):
    """A push of main, all read, that waits for the repository's lock: (folder, lock, tip, socket)."""
    r = Repo(daemon.home / name, files=PAGE)
    daemon.push_ok(r, "alice", name, "main:side")
    tip = r.head()
    folder = server_repo(daemon, tip)
    lock = open(folder / "spaced.lock", "r+b")
    fcntl.flock(lock, fcntl.LOCK_EX)
    s = send_part(daemon, "alice", name, gitraw.commands([(ZERO, tip, "refs/heads/main")]) + Pack().bytes(), 10**6)
    wait_for("the push to wait for the lock", lambda: blocked_on_a_lock(unpackers(daemon)))
    return folder, lock, tip, s


def kill_control(daemon, pid):
    os.kill(pid, signal.SIGKILL)
    wait_for("a new control", lambda: daemon.pids("control") not in ([], [pid]) and daemon.healthy())


def test_control_killed_between_the_move_of_a_ref_and_its_build(small):
    folder, lock, tip, s = push_held_at_the_lock(small, "between")
    [control] = small.pids("control")
    os.kill(control, signal.SIGSTOP)
    lock.close()
    wait_for("the ref to move", lambda: f"{tip} refs/heads/main" in (folder / "packed-refs").read_text())
    wait_for("the unpack process to end", lambda: not unpackers(small))
    kill_control(small, control)
    s.close()
    small.wait_stage("alice", "between", "RUNNING")
    assert "hi" in small.get_ok("alice", "between").text
    builds = small.ctl_json("build", "list", "alice/between")
    assert len(builds if isinstance(builds, list) else builds["builds"]) == 1


def test_control_killed_before_the_move_of_a_ref(small):
    """Nobody would build it: so it is not moved, and the client, who heard nothing, pushes again."""
    folder, lock, tip, s = push_held_at_the_lock(small, "before")
    [control] = small.pids("control")
    kill_control(small, control)
    lock.close()
    wait_for("the unpack process to end", lambda: not unpackers(small))
    s.close()
    assert "refs/heads/main" not in (folder / "packed-refs").read_text()
    assert leftovers(folder) == []
    done = gitraw.push(small, "alice", "before", [(ZERO, tip, "refs/heads/main")], Pack().bytes())
    assert "ok refs/heads/main" in done.report
    small.wait_stage("alice", "before", "RUNNING")


def slow_clone(daemon, name, tip):
    """A clone whose reader takes what fits into the buffers, and no more."""
    body = gitraw.pkt(f"want {tip} side-band-64k ofs-delta\n".encode()) + b"0000" + gitraw.pkt(b"done\n")
    s = socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.sendall(f"POST /spaces/alice/{name}/git-upload-pack HTTP/1.1\r\nHost: {daemon.domain}:{daemon.port}\r\n"
              "Content-Type: application/x-git-upload-pack-request\r\n"
              f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return s


def test_slow_clones_of_one_address_wait_and_others_go_on(spaced, repo):
    r = repo(files={**PAGE, "noise": os.urandom(12_000_000)})
    spaced.push_ok(r, "alice", "slow", "main:side")
    slow = [slow_clone(spaced, "slow", r.head()) for _ in range(40)]
    try:
        wait_for("as many processes as one address may have", lambda: len(processes("upload-pack", str(spaced.state))) >= 8, 60)
        assert len(processes("upload-pack", str(spaced.state))) < 20  # role and its pack-objects
        assert spaced.healthy()
        # those that wait go away, and one that is served: the next clone gets its place
        for s in slow[:-4]:
            s.close()
        git("clone", "-q", "-b", "side", spaced.remote("alice", "slow"), str(r.path.parent / "clone"))
    finally:
        for s in slow:
            s.close()
    wait_for("no process left", lambda: not processes("upload-pack", str(spaced.state)))


def test_many_ask_for_refs_at_once(spaced, repo):
    r = repo(files=PAGE)
    spaced.push_ok(r, "alice", "crowd", "main:side")
    status = []

    def ask():
        status.append(spaced.request("GET", "/spaces/alice/crowd/info/refs?service=git-upload-pack", timeout=120).status)

    threads = [threading.Thread(target=ask) for _ in range(150)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert status == [200] * 150


# --- what a push may not hold

BAD_NAMES = [".git", ".GIT", ".gIt", "git~1", "GIT~1", ".git ", ".git.", ".git...", ".git::$INDEX_ALLOCATION", ".g\u200cit",
             "\u200e.git", ".gi\ufefft", "..", ".", "", "a/b", "x\\.git\\config"]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("mode", ["100644", "40000"])
def test_tree_names(spaced, name, mode):
    p = Pack()
    inner = p.add("blob", b"x") if mode == "100644" else p.add("tree", b"")
    refuse(spaced, p, tree((mode, name, inner)), "tree entry")


def refuse(daemon, pack, raw_tree, reason, name="evil"):
    tip = pack.add("commit", commit(pack.add("tree", raw_tree)))
    done = gitraw.push(daemon, "alice", name, [(ZERO, tip, "refs/heads/evil")], pack.bytes())
    assert done.status == 200 and "ng refs/heads/evil" in done.report and reason in done.report, done
    assert tip not in "".join(p.read_text() for p in (daemon.state / "repos").glob("*.git/packed-refs"))


def test_tree_shapes(spaced):
    def blob(p):
        return p.add("blob", b"x")

    p = Pack()
    refuse(spaced, p, tree(("100644", "a", b := blob(p)), ("100644", "a", b)), "same name twice")
    p = Pack()
    t = p.add("tree", b"")
    refuse(spaced, p, tree(("100644", "a", b := blob(p)), ("100644", "a.c", b), ("40000", "a", t)), "same name twice")
    p = Pack()
    refuse(spaced, p, tree(("100644", "b", b := blob(p)), ("100644", "a", b)), "not sorted")
    for mode in ("100600", "104755", "20000", "0100644", "140000"):
        p = Pack()
        refuse(spaced, p, tree((mode, "a", blob(p))), "mode" if mode[0] != "0" else "malformed tree")
    for name in (".gitmodules", ".GitModules", ".gitattributes", ".gitignore", "gitmod~1"):
        p = Pack()
        refuse(spaced, p, tree(("120000", name, blob(p))), "symlink in place of")
    p = Pack()
    refuse(spaced, p, b"100644 a\0short", "malformed tree")


@pytest.mark.parametrize("text", ['[submodule "../../x"]\n\tpath = a\n\turl = b\n', '[submodule "a"]\n\turl = -u./payload\n',
                                  '[submodule "a"]\n\tpath = --x\n', '[submodule "a"]\n\tupdate = !sh\n',
                                  '[submodule "a"]\n\turl = https://x/%0ahost=y\n'])
def test_gitmodules(spaced, text):
    p = Pack()
    refuse(spaced, p, tree(("100644", ".gitmodules", p.add("blob", text.encode()))), ".gitmodules")


def test_missing_objects_and_wrong_kinds(spaced):
    p = Pack()
    refuse(spaced, p, tree(("100644", "a", "1" * 40)), "missing")
    p = Pack()
    refuse(spaced, p, tree(("40000", "a", p.add("blob", b"x"))), "another kind")
    p = Pack()
    tip = p.add("commit", commit("2" * 40))
    done = gitraw.push(spaced, "alice", "evil", [(ZERO, tip, "refs/heads/evil")], p.bytes())
    assert "missing" in done.report
    # an object that nothing names is checked too: a later push could name it
    p = Pack()
    p.add("tree", tree(("40000", ".git", p.add("tree", b""))))
    tip = p.add("commit", commit(p.add("tree", tree(("100644", "fine", p.add("blob", b"fine"))))))
    done = gitraw.push(spaced, "alice", "evil", [(ZERO, tip, "refs/heads/evil")], p.bytes())
    assert "ng refs/heads/evil" in done.report
    p = Pack()
    done = gitraw.push(spaced, "alice", "evil", [(ZERO, p.add("blob", b"no commit"), "refs/heads/evil")], p.bytes())
    assert "a branch must name a commit" in done.report
    done = gitraw.push(spaced, "alice", "evil", [(ZERO, "3" * 40, "refs/heads/evil")], Pack().bytes())
    assert "missing" in done.report


@pytest.mark.parametrize("body", [b"", b"0000", b"0003", b"xxxx", b"0005", b"fff0", b"ffff", b"0001", b"0002",
                                  gitraw.pkt("nonsense") + b"0000", gitraw.pkt(f"{ZERO} {ZERO} \0") + b"0000",
                                  gitraw.pkt("push-cert\0") + b"0000",
                                  gitraw.commands([(ZERO, "1" * 40, "refs/heads/x")]),
                                  gitraw.commands([(ZERO, "1" * 40, "refs/heads/x")]) + b"PACK",
                                  gitraw.commands([(ZERO, "1" * 40, "refs/heads/x")]) + b"JUNKJUNKJUNKJUNK",
                                  gitraw.commands([(ZERO, ZERO, "refs/heads/x")]) + b"trailing"])
def test_malformed_requests(spaced, body):
    done = gitraw.post(spaced, "alice", "malformed", body)
    assert done.status in (200, 400)
    assert "ok refs" not in done.report
    assert spaced.healthy()


def test_corrupt_packs(spaced):
    tip, pack = big_push()
    for at in (5, 11, 14, len(pack) // 2, len(pack) - 30, len(pack) - 5):
        broken = pack[:at] + bytes([pack[at] ^ 0x55]) + pack[at + 1:]
        done = gitraw.push(spaced, "alice", "corrupt", [(ZERO, tip, "refs/heads/x")], broken)
        assert "ng refs/heads/x" in done.report, at
    for cut in (pack[:-1], pack + b"x"):
        done = gitraw.push(spaced, "alice", "corrupt", [(ZERO, tip, "refs/heads/x")], cut)
        assert "ng refs/heads/x" in done.report


def test_push_options_hold_no_control_characters(spaced):
    tip, pack = big_push()
    done = gitraw.push(spaced, "alice", "opts", [(ZERO, tip, "refs/heads/x")], pack, options=["a\nb: c"])
    assert "control character" in done.report
    done = gitraw.push(spaced, "alice", "opts", [(ZERO, tip, "refs/heads/x")], pack, options=["x"] * 100)
    assert "too many" in done.report


def test_ref_names(spaced):
    tip, pack = big_push()
    for name, reason in (("refs/heads/" + "x" * 300, "too long"), ("refs/heads/a..b", "bad ref name"),
                         ("refs/heads/-x", "dash"), ("refs/heads/x.lock", ".lock"), ("refs/heads/a b", "bad ref name"),
                         ("refs/heads/\x1b[2J", "bad ref name"), ("refs/heads/.x", "dot"), ("refs/heads//x", "empty"),
                         ("refs/heads/x/", "empty"), ("refs/heads/HEAD", "reserved"), ("HEAD", "only refs/heads/"),
                         ("refs/heads/../../HEAD", "bad ref name")):
        done = gitraw.push(spaced, "alice", "refnames", [(ZERO, tip, name)], pack)
        assert done.report.count("ng ") == 1 and reason in done.report, (name, done.report)


# --- bombs, against small limits

def refused_fast(daemon, updates, pack, reason):
    """Within the patience of gitraw.post(): a bound for hanging, not for speed."""
    done = gitraw.push(daemon, "alice", "bomb", updates, pack)
    assert reason in done.report, done
    assert "ok refs/" not in done.report


def test_refs_flood(small):
    tip, pack = big_push()
    many = [(ZERO, tip, f"refs/heads/b{i}") for i in range(21)]
    refused_fast(small, many, pack, "too many refs in one push, the limit is 20")


def test_zlib_bomb(small):
    p = Pack()
    tip = p.add("blob", b"\0" * (50 << 20))
    refused_fast(small, [(ZERO, tip, "refs/tags/x")], p.bytes(), "is too big, the limit is 1048576")
    p = Pack()
    for i in range(10):
        tip = p.add("blob", bytes([i]) * 1_000_000)
    refused_fast(small, [(ZERO, tip, "refs/tags/x")], p.bytes(), "unpacks to more than 8388608")


def test_gzip_bomb(small):
    body = gzip.compress(gitraw.commands([(ZERO, "1" * 40, "refs/tags/x")]) + b"PACK" + b"\0" * (60 << 20))
    done = gitraw.post(small, "alice", "bomb", body, headers={"Content-Encoding": "gzip"})
    assert "unpack ok" not in done.report
    options = gitraw.pkt("x") * 5_000_000
    body = gzip.compress(gitraw.commands([(ZERO, "1" * 40, "refs/tags/x")], caps=gitraw.CAPS + " push-options") + options, 1)
    done = gitraw.post(small, "alice", "bomb", body, headers={"Content-Encoding": "gzip"})
    assert "too many or too long push options" in done.report, done


def delta(base_size, result_size, ops):
    return gitraw.varint(base_size) + gitraw.varint(result_size) + ops


def test_delta_bomb(small):
    """A delta of some bytes that copies one base 200 times."""
    p = Pack()
    base = b"x" * 60000
    p.add("blob", base)
    ops = bytes([0x80 | 0x10 | 0x20]) + (60000).to_bytes(2, "little")
    p.add_ofs_delta(0, delta(60000, 60000 * 200, ops * 200))
    refused_fast(small, [(ZERO, gitraw.oid_of("blob", base), "refs/tags/x")], p.bytes(), "is too big")


def test_delta_chain(small):
    p = Pack()
    p.add("blob", b"a" * 100)
    copy = bytes([0x80 | 0x10, 100])
    for i in range(1, 1100):
        p.add_ofs_delta(i - 1, delta(100, 100, copy))
    refused_fast(small, [(ZERO, gitraw.oid_of("blob", b"a" * 100), "refs/tags/x")], p.bytes(), "delta chain longer")


def test_cyclic_and_missing_ref_deltas(small):
    p = Pack()
    p.add_ref_delta("1" * 40, delta(1, 1, b"\x01a"))
    p.add_ref_delta("2" * 40, delta(1, 1, b"\x01b"))
    refused_fast(small, [(ZERO, "1" * 40, "refs/tags/x")], p.bytes(), "unpack index the pack")


def test_many_objects_and_big_packs(small):
    p = Pack()
    refused_fast(small, [(ZERO, "1" * 40, "refs/tags/x")], p.bytes(count=4_000_000_000), "objects in one push")
    p = Pack()
    for i in range(4):
        tip = p.add("blob", os.urandom(1_000_000))
    refused_fast(small, [(ZERO, tip, "refs/tags/x")], p.bytes(), "the pack is bigger than")


def test_deep_trees_and_long_paths(small):
    p = Pack()
    t = p.add("tree", b"")
    for _ in range(25):
        t = p.add("tree", tree(("40000", "d", t)))
    refused_fast(small, [(ZERO, p.add("commit", commit(t)), "refs/heads/x")], p.bytes(), "nested deeper than 20")
    p = Pack()
    t = p.add("tree", tree(("100644", "f", p.add("blob", b""))))
    for _ in range(5):
        t = p.add("tree", tree(("40000", "n" * 100, t)))
    refused_fast(small, [(ZERO, p.add("commit", commit(t)), "refs/heads/x")], p.bytes(), "a path is longer than 400")
    # the parts of a deep tree in two pushes
    p = Pack()
    t = p.add("tree", b"")
    for _ in range(15):
        t = p.add("tree", tree(("40000", "d", t)))
    done = gitraw.push(small, "alice", "bomb", [(ZERO, p.add("commit", commit(t)), "refs/heads/part")], p.bytes())
    assert "ok refs/heads/part" in done.report, done
    p = Pack()
    for _ in range(10):
        t = p.add("tree", tree(("40000", "d", t)))
    refused_fast(small, [(ZERO, p.add("commit", commit(t)), "refs/heads/x")], p.bytes(), "nested deeper than 20")


def test_git_bomb(small):
    """Ten blobs, ten trees, 10^10 files: the push is fine, the checkout stops early and says why."""
    p = Pack()
    inner = p.add("blob", b"boom")
    kind = "100644"
    for _ in range(10):
        inner = p.add("tree", tree(*((kind, f"f{i}", inner) for i in range(10))))
        kind = "40000"
    readme = p.add("blob", PAGE["README.md"].encode())
    root = p.add("tree", tree(("100644", "README.md", readme), ("40000", "bomb", inner), ("100644", "index.html", readme)))
    tip = p.add("commit", commit(root))
    done = gitraw.push(small, "alice", "gitbomb", [(ZERO, tip, "refs/heads/main")], p.bytes(), options=[])
    assert "ok refs/heads/main" in done.report, done
    assert "more than 1000 files and folders" in done.progress, done


def test_symlinked_readme(spaced, repo):
    r = repo(files={"index.html": "<h1>hi</h1>"})
    os.symlink("/etc/passwd", r.path / "README.md")
    r.commit("link")
    done = spaced.push(r, "alice", "linked")
    assert "root:" not in done.stdout
    assert "root:" not in spaced.get("alice", "linked", "/README.md").text
