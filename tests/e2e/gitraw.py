"""Pushes that stock git would never send: objects, packs and requests made by hand. For test_git_push.py."""
import base64
import hashlib
import http.client
import struct
import zlib
from dataclasses import dataclass

ZERO = "0" * 40
TYPES = {"commit": 1, "tree": 2, "blob": 3, "tag": 4, "ofs": 6, "ref": 7}
CAPS = "report-status side-band-64k object-format=sha1 agent=test"


def pkt(data):
    data = data.encode() if isinstance(data, str) else data
    return b"%04x" % (len(data) + 4) + data


def oid_of(kind, data):
    return hashlib.sha1(b"%s %d\0" % (kind.encode(), len(data)) + data).hexdigest()


def varint(n):
    out = bytearray()
    while True:
        out.append((n & 0x7F) | (0x80 if n > 0x7F else 0))
        n >>= 7
        if not n:
            return bytes(out)


def tree(*entries):
    """(mode, name, oid) in the order given, right or not."""
    return b"".join(b"%s %s\0" % (mode.encode(), name if isinstance(name, bytes) else name.encode()) + bytes.fromhex(oid)
                    for mode, name, oid in entries)


def commit(tree_oid, parents=()):
    lines = [f"tree {tree_oid}", *(f"parent {p}" for p in parents), "author A <a@b> 1700000000 +0000",
             "committer A <a@b> 1700000000 +0000", "", "by hand"]
    return ("\n".join(lines) + "\n").encode()


class Pack:
    def __init__(self):
        self.body = b""
        self.count = 0
        self.starts = []

    def _entry(self, kind, size, extra, data):
        head, rest = TYPES[kind] << 4 | (size & 15), size >> 4
        self.starts.append(12 + len(self.body))
        while rest:
            self.body += bytes([head | 0x80])
            head, rest = rest & 0x7F, rest >> 7
        self.body += bytes([head]) + extra + zlib.compress(data, 9)
        self.count += 1

    def add(self, kind, data, size=None):
        self._entry(kind, len(data) if size is None else size, b"", data)
        return oid_of(kind, data)

    def add_ref_delta(self, base_oid, delta):
        self._entry("ref", len(delta), bytes.fromhex(base_oid), delta)

    def add_ofs_delta(self, base_index, delta):
        back = 12 + len(self.body) - self.starts[base_index]
        out = [back & 0x7F]
        while back := back >> 7:
            back -= 1
            out.insert(0, 0x80 | (back & 0x7F))
        self._entry("ofs", len(delta), bytes(out), delta)

    def bytes(self, count=None):
        data = b"PACK" + struct.pack(">II", 2, self.count if count is None else count) + self.body
        return data + hashlib.sha1(data).digest()


@dataclass
class Outcome:
    status: int
    report: str
    progress: str
    body: bytes


def commands(updates, caps=CAPS, options=None):
    """updates: (old, new, ref)."""
    out = b""
    for i, (old, new, ref) in enumerate(updates):
        line = f"{old} {new} {ref}".encode()
        out += pkt(line + (b"\0 " + caps.encode() + (b" push-options" if options is not None else b"") if i == 0 else b""))
    out += b"0000"
    if options is not None:
        out += b"".join(pkt(o) for o in options) + b"0000"
    return out


def auth(user, token):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()}


def demux(body):
    bands = {1: b"", 2: b"", 3: b""}
    at = 0
    while at + 4 <= len(body):
        n = int(body[at:at + 4], 16)
        if n == 0:
            break
        if n > 4 and body[at + 4] in bands:
            bands[body[at + 4]] += body[at + 5:at + n]
        at += max(n, 4)
    return bands


def post(daemon, owner, name, body, user=None, headers=None, timeout=120):
    user = user or owner
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=timeout)
    try:
        connection.request("POST", f"/spaces/{owner}/{name}/git-receive-pack", body=body, headers={
            "Host": f"{daemon.domain}:{daemon.port}", "Content-Type": "application/x-git-receive-pack-request",
            **auth(user, daemon.token(user)), **(headers or {})})
        answer = connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            return Outcome(answer.status, "", data.decode(errors="replace"), data)
        bands = demux(data)
        return Outcome(200, bands[1].decode(), bands[2].decode(), data)
    finally:
        connection.close()


def push(daemon, owner, name, updates, pack=b"", options=("nowait",), **kw):
    return post(daemon, owner, name, commands(updates, options=options) + pack, **kw)
