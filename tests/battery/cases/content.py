"""A18, E9: hostile content and hostile clients, against the daemon itself."""
import io
import os
import socket
import subprocess
import tarfile
import time

from rig.case import Broken, Escape

from .setup import Canary

EVIL = {
    "up and out": [("../evil", tarfile.REGTYPE, b"x", "")],
    "up in the middle": [("a/../../evil", tarfile.REGTYPE, b"x", "")],
    "a symlink, then through it": [("to", tarfile.SYMTYPE, b"", "{canary}"), ("to/evil", tarfile.REGTYPE, b"x", "")],
    "a relative symlink, then through it": [("to", tarfile.SYMTYPE, b"", "../../../../../../../..{canary}"),
                                            ("to/evil", tarfile.REGTYPE, b"x", "")],
    "a hard link out": [("to", tarfile.LNKTYPE, b"", "{canary}/file"), ("to", tarfile.REGTYPE, b"evil", "")],
    "a relative hard link out": [("to", tarfile.LNKTYPE, b"", "../../../../../../../..{canary}/file")],
    "a character device": [("null", tarfile.CHRTYPE, b"", "")],
    "a block device": [("loop", tarfile.BLKTYPE, b"", "")],
    "a pipe": [("pipe", tarfile.FIFOTYPE, b"", "")],
    "300 components": [("/".join(["d"] * 300), tarfile.REGTYPE, b"x", "")],
    "a name of 100,000 bytes": [("n" * 100000, tarfile.REGTYPE, b"x", "")],
    "an absolute path": [("{canary}/evil", tarfile.REGTYPE, b"x", "")],
    "over the site's own data": [("../site.json", tarfile.REGTYPE, b"{}", "")],
}


def archive(entries, canary):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind, data, target in entries:
            info = tarfile.TarInfo("x")
            info.name, info.type, info.size = name.format(canary=canary), kind, len(data)
            info.linkname, info.mode, info.uid = target.format(canary=canary), 0o4777, 0
            info.devmajor, info.devminor = (1, 3) if kind == tarfile.CHRTYPE else (7, 0)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def odd_files(folder):
    """What may not be in an extracted tree: neither file, folder nor link that stays inside; or owned, modal."""
    found, names = [], {}
    for at, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(at, name)
            st = os.lstat(path)
            if os.path.islink(path):
                if not os.path.realpath(path).startswith(os.path.realpath(folder) + "/"):
                    found.append(f"{path} -> {os.readlink(path)}")
            elif not os.path.isdir(path) and not os.path.isfile(path) or st.st_mode & 0o6002:
                found.append(f"{path} mode {st.st_mode:o}")
            elif os.path.isfile(path):
                names.setdefault((st.st_ino, st.st_nlink), []).append(path)
    # a file that has more names than are to be seen here has one elsewhere
    return found + [f"{paths[0]} has {links} names" for (_, links), paths in names.items() if len(paths) != links]


def by_archive(battery, canary):
    """The extract role, as control starts it, fed with what a build could have sent."""
    refused = harmless = 0
    for n, (what, entries) in enumerate(EVIL.items()):
        sites = battery.folder(f"A18-{n}")
        with open(f"{sites}.json", "w") as f:
            f.write("{}")
        done = subprocess.run(["sh", "-c", 'exec 3<"$0"; exec "$@"', f"{sites}.json", str(battery.build / "spaced"),
                               "--role", "extract", sites, "0123456789abcdef", str(1 << 30), "10000"],
                              input=archive(entries, canary.path), capture_output=True, timeout=60)
        if done.returncode not in (0, 1):
            raise Broken(f"{what}: status {done.returncode}: {done.stderr[-300:]}")
        if done.returncode == 1 and not done.stderr.strip():
            raise Broken(f"{what}: refused without a reason")
        canary.check(what)
        odd = odd_files(sites)
        if odd:
            raise Escape(f"{what}: {odd}")
        if sorted(os.listdir(sites)) not in ([], ["0123456789abcdef"]):
            raise Escape(f"{what}: {os.listdir(sites)}")
        left = [os.path.join(at, f) for at, _, files in os.walk(sites) for f in files]
        if done.returncode == 1 and left:
            raise Escape(f"{what}: refused, but {left} is there")
        refused += done.returncode
        harmless += 1 - done.returncode
    return refused, harmless


def by_git(daemon):
    """Trees that git itself would never make."""
    import gitraw
    refused = 0
    names = ("..", ".", ".git", ".GIT", "git~1", "a/b", "../x", "/etc", "")
    for n, name in enumerate(names):
        pack = gitraw.Pack()
        tree = gitraw.tree(("100644", name, pack.add("blob", b"x")))
        tip = pack.add("commit", gitraw.commit(pack.add("tree", tree)))
        done = gitraw.push(daemon, "alice", f"evil-{n}", [(gitraw.ZERO, tip, "refs/heads/main")], pack.bytes())
        if done.status != 200 or "ng refs/heads/main" not in done.report:
            raise Escape(f"a tree with `{name}` was taken: {done.report}")
        refused += 1
    return refused


def by_build(battery, daemon, canary):
    """A build that leaves what it likes, pushed as anybody would."""
    from apps import header
    from harness import Repo
    command = (f"mkdir dist && cd dist && echo made > index.html && ln -s {canary.path} out && ln -s /etc/passwd passwd"
               f" && ln -s ../../../../../../../..{canary.path}/file rel && ln index.html hard"
               " && mkdir deep && cd deep && ln -s ../../.. up && chmod 4777 ../index.html")
    work = Repo(battery.folder("A18-build") + "/repo",
                files={"README.md": header(sdk="static", app_file="dist/index.html",
                                           app_build_command=f"'{command}'")})
    daemon.push_ok(work, "alice", "hostile-build")
    if daemon.get_ok("alice", "hostile-build").text != "made\n":
        raise Broken("the site is not there")
    for path in ("/out/file", "/passwd", "/rel", "/deep/up/state/control/token.key", "/out/"):
        answer = daemon.get("alice", "hostile-build", path)
        if answer.status != 404:
            raise Escape(f"{path}: status {answer.status}: {answer.text[:60]!r}")
    odd = odd_files(daemon.state / "sites")
    if odd:
        raise Escape(f"in the sites: {odd}")
    canary.check("a build's output")


def hostile_content(battery, case):
    canary = Canary(battery)
    refused, harmless = by_archive(battery, canary)
    daemon = battery.daemon()
    trees = by_git(daemon)
    by_build(battery, daemon, canary)
    canary.check("a push")
    return (f"{len(EVIL)} archives: {refused} refused, {harmless} without what leads out; {trees} git trees refused; "
            "a build's links lead nowhere")


def descriptors(pid):
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def sent_descriptors(battery, case):
    """E9: descriptors and credentials sent to the daemon's control socket."""
    daemon = battery.daemon()
    path = str(daemon.state / "control.sock")
    control = daemon.pids("control")
    daemon.ctl_json("space", "list")
    before = {pid: descriptors(pid) for pid in control}
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    null = os.open("/dev/null", os.O_RDONLY)
    try:
        for count in (1, 16, 253) * 10:
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(path)
                socket.send_fds(s, [request], [null] * count)
                s.settimeout(20)
                s.recv(4096)
        # kept open, so that what was taken would still be there
        kept = []
        for _ in range(20):
            s = socket.socket(socket.AF_UNIX)
            s.connect(path)
            socket.send_fds(s, [b"GET "], [null] * 253)
            kept.append(s)
        daemon.ctl_json("space", "list")
        deadline = time.monotonic() + 60
        while True:  # the ends of the thirty before are heard of later
            during = {pid: descriptors(pid) for pid in control}
            if all(n - before[pid] <= len(kept) + 8 for pid, n in during.items()) or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        for s in kept:
            s.close()
    finally:
        os.close(null)
    grown = {pid: n - before[pid] for pid, n in during.items()}
    if max(grown.values()) > len(kept) + 8:
        raise Escape(f"descriptors were taken: {grown}")
    deadline = time.monotonic() + 60
    while any(descriptors(pid) > n + 2 for pid, n in before.items()):
        if time.monotonic() > deadline:
            raise Escape(f"descriptors leaked: {before} -> { {pid: descriptors(pid) for pid in control} }")
        time.sleep(0.1)
    if daemon.pids("control") != control:
        raise Escape("the control role was restarted")
    # Credentials: what the kernel says about the connection counts, whatever the message says.
    script = ("import os, socket, struct, sys\n"
              "s = socket.socket(socket.AF_UNIX)\n"
              "try:\n"
              "    s.connect(sys.argv[1])\n"
              "except OSError as e:\n"
              "    print('refused', e.errno); sys.exit()\n"
              "try:\n"
              "    s.sendmsg([b'GET /api/admin/users HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'], [(socket.SOL_SOCKET,\n"
              "        socket.SCM_CREDENTIALS, struct.pack('3i', os.getpid(), 0, 0))])\n"
              "    print('forged')\n"
              "except OSError as e:\n"
              "    print('refused', e.errno)\n"
              "try:\n"
              "    s.sendall(b'GET /api/admin/users HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); print('answer', s.recv(100))\n"
              "except OSError as e:\n"
              "    print('refused', e.errno)\n")
    asked = {}
    for uid in (0, 65534):
        done = subprocess.run(["/usr/bin/python3", "-c", script, path], capture_output=True, text=True, user=uid,
                              group=uid, extra_groups=[], timeout=60)
        asked[uid] = done.stdout
    if "200 OK" not in asked[0] or "forged" not in asked[0]:
        raise Broken(f"root does not get an answer: {asked[0]} {done.stderr}")
    if "forged" in asked[65534] or " 200 " in asked[65534] or not asked[65534]:
        raise Escape(f"another user at the control socket: {asked[65534]} {done.stderr}")
    return f"30 messages with up to 253 descriptors: none kept; another user: {asked[65534].splitlines()[-1][:40]}"


