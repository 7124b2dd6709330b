"""Static Spaces the whole way: pushed, extracted, routed by the proxy, served by the static role."""
import gzip
import hashlib
import socket

import pytest

from apps import header
from harness import wait_for

SCRIPT = "export const words = ['spaces', 'and', 'more'];\n" * 400
BIG = bytes(i * 2654435761 >> 13 & 255 for i in range(1 << 16)) * 48  # 3 MiB

FILES = {
    "README.md": header(title="Files", sdk="static"),
    "index.html": "<!doctype html><title>front</title>",
    "404.html": "<h1>own 404</h1>",
    "app.mjs": SCRIPT,
    "data.json": '{"a": 1}',
    "module.wasm": b"\0asm\1\0\0\0",
    "font.woff2": b"wOF2",
    "photo.avif": b"\0\0\0\x1cftypavif",
    "big.bin": BIG,
    "docs/index.html": "docs",
    "docs/café & co.txt": "odd name",
    ".env": "SECRET=1",
    ".well-known/security.txt": "Contact: us",
    ".gitattributes": "*.bin binary\n",
}


@pytest.fixture(scope="module")
def site(spaced, tmp_path_factory):
    from harness import Repo
    work = Repo(tmp_path_factory.mktemp("static") / "repo", files=FILES)
    (work.path / "link.txt").symlink_to("docs/café & co.txt")
    (work.path / "outside.txt").symlink_to("/etc/hostname")
    work.commit("links")
    spaced.push_ok(work, "alice", "static-site")

    def get(path="/", **kw):
        return spaced.get("alice", "static-site", path, **kw)

    get.repo = work
    return get


@pytest.mark.parametrize("path, status, kind, text", [
    ("/", 200, "text/html; charset=utf-8", "front"),
    ("/index.html?v=1", 200, "text/html; charset=utf-8", "front"),
    ("/app.mjs", 200, "text/javascript; charset=utf-8", "words"),
    ("/data.json", 200, "application/json", '"a"'),
    ("/module.wasm", 200, "application/wasm", "asm"),
    ("/font.woff2", 200, "font/woff2", "wOF2"),
    ("/photo.avif", 200, "image/avif", "avif"),
    ("/docs/", 200, "text/html; charset=utf-8", "docs"),
    ("/docs/caf%C3%A9%20%26%20co.txt", 200, "text/plain; charset=utf-8", "odd name"),
    ("/link.txt", 200, "text/plain; charset=utf-8", "odd name"),
    ("/README.md", 200, "text/markdown; charset=utf-8", "static"),
    ("/.gitattributes", 200, "text/plain; charset=utf-8", "binary"),
    ("/.well-known/security.txt", 200, "text/plain; charset=utf-8", "Contact"),
    ("/missing.html", 404, "text/html; charset=utf-8", "own 404"),
    ("/.env", 404, "text/html; charset=utf-8", "own 404"),
    ("/.git/config", 404, "text/html; charset=utf-8", "own 404"),
    ("/outside.txt", 404, "text/html; charset=utf-8", "own 404"),
    ("/index.html/", 404, "text/html; charset=utf-8", "own 404"),
])
def test_paths(site, path, status, kind, text):
    answer = site(path)
    assert (answer.status, answer.headers["Content-Type"]) == (status, kind)
    assert text in answer.text
    head = site(path, method="HEAD")
    assert (head.status, head.headers["Content-Type"], head.body) == (status, kind, b"")
    assert head.headers["Content-Length"] == str(len(answer.body))


@pytest.mark.parametrize("target", ["/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc/passwd",
                                    "/docs/%2e%2e/%2e%2e/x", "/a%00.html", "/docs%2findex.html"])
def test_ways_out(spaced, site, target):
    """As raw bytes: clients tidy such paths up before they send them."""
    with socket.create_connection(("127.0.0.1", spaced.port), timeout=20) as s:
        host = spaced.host("alice", "static-site")
        s.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}:{spaced.port}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := s.recv(65536):
            answer += part
    assert answer.split()[1] in (b"400", b"404"), answer[:300]
    assert b"root:" not in answer


def test_folder_without_slash(site):
    answer = site("/docs?x=1")
    assert answer.status == 301
    assert answer.headers["Location"].endswith("/docs/?x=1")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods(site, method):
    answer = site("/", method=method)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"


def test_validators(site):
    first = site("/app.mjs")
    etag, date = first.headers["ETag"], first.headers["Last-Modified"]
    assert etag.startswith('"') and date.endswith("GMT")
    for name, value in (("If-None-Match", etag), ("If-None-Match", f'"x", W/{etag}'), ("If-Modified-Since", date)):
        again = site("/app.mjs", headers={name: value})
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", etag)
    assert site("/app.mjs", headers={"If-None-Match": '"x"'}).status == 200
    assert site("/app.mjs", headers={"If-Match": '"x"'}).status == 412
    assert site("/").headers["Cache-Control"] == "no-cache"


def test_ranges(site):
    whole = site("/big.bin")
    assert hashlib.sha256(whole.body).digest() == hashlib.sha256(BIG).digest()
    part = site("/big.bin", headers={"Range": "bytes=100-199", "Accept-Encoding": "gzip"})
    assert (part.status, part.body) == (206, BIG[100:200])
    assert part.headers["Content-Range"] == f"bytes 100-199/{len(BIG)}"
    assert site("/big.bin", headers={"Range": "bytes=-70000"}).body == BIG[-70000:]
    assert site("/big.bin", headers={"Range": "bytes=0-9", "If-Range": whole.headers["ETag"]}).status == 206
    assert site("/big.bin", headers={"Range": "bytes=0-9", "If-Range": '"other"'}).status == 200
    beyond = site("/big.bin", headers={"Range": f"bytes={len(BIG)}-"})
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(BIG)}")


def test_compression(site):
    plain = site("/app.mjs")
    packed = site("/app.mjs", headers={"Accept-Encoding": "gzip"})
    assert plain.text == SCRIPT and plain.headers["Content-Encoding"] is None
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body).decode() == SCRIPT
    assert len(packed.body) < len(SCRIPT) / 10
    assert packed.headers["ETag"] != plain.headers["ETag"]
    assert "Accept-Encoding" in plain.headers["Vary"] and "Accept-Encoding" in packed.headers["Vary"]
    assert site("/app.mjs", headers={"Accept-Encoding": "gzip, br"}).headers["Content-Encoding"] == "br"
    assert site("/photo.avif", headers={"Accept-Encoding": "gzip, br"}).headers["Content-Encoding"] is None


def test_new_push_replaces_all(spaced, site):
    """Last: it changes the site. Nothing of the old release is served, with or without validators."""
    old = site("/app.mjs")
    site.repo.git("rm", "-q", "data.json")
    site.repo.commit("second", {"app.mjs": "export {};\n", "index.html": "second"})
    spaced.push_ok(site.repo, "alice", "static-site")
    assert "second" in wait_for("the new page", lambda: (a := site("/")).text == "second" and a).text
    assert site("/data.json").status == 404
    fresh = site("/app.mjs", headers={"If-None-Match": old.headers["ETag"]})
    assert (fresh.status, fresh.text) == (200, "export {};\n")


def test_start_page_in_a_folder(spaced, repo):
    work = repo(files={"README.md": header(sdk="static", app_file="site/main.html"), "site/main.html": "inner",
                       "site/style.css": "a{}"})
    spaced.push_ok(work, "alice", "inner-page")
    first = spaced.get("alice", "inner-page", "/")
    assert first.status == 302
    assert first.headers["Location"].endswith("/site/main.html")
    assert spaced.get("alice", "inner-page", "/site/main.html").text == "inner"


@pytest.mark.deadline(300)
def test_hostile_build_output(spaced, repo):
    """What a build leaves is an outsider's tar stream: a pipe in it fails the build, a link that leads out is left out."""
    def built(command):
        return repo(files={"README.md": "---\nsdk: static\napp_file: dist/index.html\napp_build_command: '"
                           f"mkdir dist && echo made > dist/index.html && {command}'\n---\n"})

    done = spaced.push(built("mkfifo dist/pipe"), "alice", "pipe")
    assert "`pipe` is neither file, folder nor link" in done.stdout, done.stdout
    spaced.push_ok(built("ln -s /etc/passwd dist/out && ln dist/index.html dist/hard && ln -s hard dist/soft"), "alice",
                   "links")
    assert spaced.get_ok("alice", "links").text == "made\n"
    assert spaced.get("alice", "links", "/soft").text == "made\n"
    assert spaced.get("alice", "links", "/out").status == 404
    assert not list((spaced.state / "sites").glob(".tmp-*"))
