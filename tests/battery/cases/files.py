"""A13 to A17, C9: what lies ready on a volume, and what an app leaves there."""
import ctypes
import os
import shutil
import stat
from dataclasses import replace

from rig.case import Broken, Escape, judge
from rig.host import LIBC


def on_volume(battery, case, volume, argument, *options):
    """A probe case whose argument is a path of a volume that is at the same place inside and outside."""
    case = replace(case, argument=lambda b: argument)
    battery.controls.pop(case.id, None)
    outside = battery.outside(case)
    return outside, battery.inside(case, *(options or (battery.bind, volume, volume)))


def nodes(battery, case):
    volume = battery.volume("A13")
    for name, kind, device in (("chr", stat.S_IFCHR, os.makedev(1, 5)), ("blk", stat.S_IFBLK, os.makedev(7, 0))):
        os.mknod(f"{volume}/{name}", kind | 0o666, device)
        os.chmod(f"{volume}/{name}", 0o666)
    try:
        return judge(*on_volume(battery, case, volume, volume))
    finally:
        shutil.rmtree(volume)


def privileged_file(battery, case):
    """A14, A15: a program on a volume that is more than a file."""
    volume = battery.volume(case.id)
    program = f"{volume}/program"
    shutil.copy(battery.probe, program)
    if case.id == "A14":
        os.chown(program, 0, 0)
        os.chmod(program, 0o6755)
    else:
        os.chmod(program, 0o755)
        # vfs_cap_data, revision 2: effective, CAP_NET_RAW and CAP_SYS_ADMIN permitted
        os.setxattr(program, "security.capability", bytes.fromhex("0100000200202000000000000000000000000000"))
    outside, inside = on_volume(battery, case, volume, program)
    if int(inside.facts["ran"]) >= 97:
        raise Broken(f"the program did not run inside: {inside.facts}")
    shutil.rmtree(volume)
    return judge(outside, inside)


def across_mounts(battery, case):
    base = battery.folder("A16")
    one, two = battery.volume("A16/one"), battery.volume("A16/two")
    with open(f"{one}/file", "w") as f:
        f.write("x")
    os.chown(f"{one}/file", battery.owner, battery.owner)
    results = [judge(*on_volume(battery, case, one, f"{one}:{two}", "--bind", one, one, "--bind", two, two)),
               judge(*on_volume(battery, case, one, f"{one}:{two}", "--ro-bind", one, one, "--bind", two, two))]
    shutil.rmtree(base)
    return results[0]


def handle_of(path):
    class Handle(ctypes.Structure):
        _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]
    h, mount = Handle(bytes=128), ctypes.c_int()
    if LIBC.name_to_handle_at(-100, path.encode(), ctypes.byref(h), ctypes.byref(mount), 0) < 0:
        raise Broken(f"no handle of {path}: {os.strerror(ctypes.get_errno())}")
    return f"{h.type}:{bytes(h.data[:h.bytes]).hex()}"


def handles(battery, case):
    volume = battery.volume("A17")
    try:
        return judge(*on_volume(battery, case, volume, f"{volume}:{handle_of(battery.host.secret)}"))
    finally:
        shutil.rmtree(volume)


def owners(battery, case):
    """C9: what is made inside, and who makes it, as the host sees them."""
    from .setup import inside_pid
    volume = battery.volume("C9")
    script = f"touch {volume}/file /tmp/file && mkdir {volume}/folder && echo ready && read x"
    argv = [*battery.box("--timeout", "60s", "--bind", volume, volume), "--", "/bin/sh", "-c", script]
    with battery.hold(argv, "ready") as (process, _):
        pid = inside_pid(battery, process)
        ids = {"process": os.stat(f"/proc/{pid}").st_uid, "file in /tmp": os.stat(f"/proc/{pid}/root/tmp/file").st_uid,
               "file on a volume": os.stat(f"{volume}/file").st_uid, "its group": os.stat(f"{volume}/file").st_gid,
               "folder on a volume": os.stat(f"{volume}/folder").st_uid}
    shutil.rmtree(volume)
    zero = [what for what, uid in ids.items() if uid == 0]
    if zero:
        raise Escape("owned by root of the host: " + ", ".join(zero))
    # On a volume an id is the one inside, for the volume is shown with the ids of the range; elsewhere it is mapped.
    if not battery.rootless and (ids["file on a volume"] != 1000 or min(ids["process"], ids["file in /tmp"]) < 100000):
        raise Escape(f"not of the range: {ids}")
    return ", ".join(f"{what} {uid}" for what, uid in ids.items())


def layer_pages(battery, case):
    """D10: a file of a read-only layer goes through pipes and sockets; what others read of it is the same after."""
    content = os.urandom(4096) * 256
    layer = battery.layer("D10", files=[("opt/file", content)])
    path = f"{layer}/root/opt/file"
    case_outside = replace(case, argument=lambda b: path)
    battery.controls.pop(case.id, None)
    outside = battery.outside(case_outside)
    inside = battery.inside(replace(case, argument=lambda b: "/opt/file"), "--layer", layer)
    with open(path, "rb") as f:
        if f.read() != content:
            raise Escape("the layer's file has changed")
    if "another content in the page cache" in inside.reached:
        raise Escape("the page cache has changed")
    if inside.facts.get("splice") != "1":
        raise Broken(f"splice did not work inside: {inside.facts}")
    return judge(outside, inside) + "; splice, tee, sendfile leave the file as it was"


