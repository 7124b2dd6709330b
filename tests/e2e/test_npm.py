"""npm: a real Vite build served as files, and what happens when it fails."""
import re

import pytest


@pytest.mark.deadline(600)
def test_vite_build(spaced, repo):
    work = repo("static-build")
    spaced.push_ok(work, "alice", "vite", timeout=560)
    page = spaced.get("alice", "vite")
    assert page.status == 200 and "Built pages" in page.text
    script = re.search(r'src="([^"]*assets/[^"]+\.js)"', page.text)
    assert script, page.text
    answer = spaced.get("alice", "vite", "/" + script.group(1).lstrip("./"))
    assert answer.status == 200 and "javascript" in answer.headers["Content-Type"]
    assert spaced.get("alice", "vite", "/package.json").status == 404, "only the output folder is served"
    # Only a page changes: node_modules come from a layer.
    work.commit("title", {"index.html": (work.path / "index.html").read_text().replace("Built pages", "Rebuilt pages")})
    out = spaced.push_ok(work, "alice", "vite", timeout=560)
    assert "CACHED" in out, out
    assert "Rebuilt pages" in spaced.get("alice", "vite").text


@pytest.mark.deadline(400)
def test_build_that_fails_keeps_the_old_pages(spaced, repo):
    work = repo(files={"README.md": "---\nsdk: static\napp_build_command: npm run build\napp_file: dist/index.html\n---\n",
                       "package.json": '{"name":"x","version":"1.0.0","scripts":{"build":"mkdir -p dist && cp page.html dist/index.html"}}',
                       "page.html": "first"})
    spaced.push_ok(work, "alice", "npm-fails")
    assert spaced.get("alice", "npm-fails").text == "first"
    work.commit("broken", {"package.json": '{"name":"x","version":"1.0.0","scripts":{"build":"echo cannot build; exit 4"}}'})
    out = spaced.push(work, "alice", "npm-fails").stdout
    assert "cannot build" in out
    assert spaced.ctl_json("build", "list", "alice/npm-fails")[0]["state"] == "failed"
    assert spaced.get("alice", "npm-fails").text == "first"
