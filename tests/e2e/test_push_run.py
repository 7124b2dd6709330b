"""The way of a push: every bundled example is built, served and redeployed; every way to fail says why."""
import re
import subprocess
import threading

import pytest

from apps import app_files, header, server, static_files
from harness import held_up, wait_for

# --- each kind of app

EXAMPLES = {
    "hello": ("/", "pushed with git and running in its own sandbox"),
    "static": ("/", "Nothing runs behind this page"),
    "fastapi": ("/docs", "Echo service"),
    "flask": ("/", "Guest book"),
    "node": ("/", "<title>Dice</title>"),
    "packages": ("/?text=Hi", "_"),
}


@pytest.mark.deadline(600)
@pytest.mark.parametrize("example", EXAMPLES)
def test_example(spaced, repo, example):
    path, text = EXAMPLES[example]
    out = spaced.push_ok(repo(example), "alice", f"example-{example}")
    assert spaced.app_url("alice", f"example-{example}") in out, out
    assert "remote:" in out
    assert spaced.stage("alice", f"example-{example}") == "RUNNING"
    answer = spaced.get("alice", f"example-{example}", path)
    assert answer.status == 200, answer.text
    assert text in answer.text


def test_packages_stay_out_of_the_host(spaced, repo):
    """figlet came from packages.txt into a layer of that Space; the host has none."""
    out = spaced.push_ok(repo("packages"), "alice", "packages-too")
    assert "CACHED" in out, "the layer of the same packages.txt is shared"
    assert spaced.get_ok("alice", "packages-too", "/?text=Hi").text.count("\n") > 4
    assert subprocess.run(["dpkg", "-s", "figlet"], capture_output=True).returncode != 0


def test_output_tells_each_phase(spaced, repo):
    out = spaced.push_ok(repo(files=app_files("phases")), "alice", "phases")
    lines = [line.removeprefix("remote: ").rstrip() for line in out.splitlines() if line.startswith("remote:")]
    text = "\n".join(lines).lower()
    for word in ("received", "queued", "start", spaced.app_url("alice", "phases")):
        assert word in text, out
    assert re.search(r"\d+(\.\d+)? ?m?s\b", text), f"no times: {out}"
    assert "main -> main" in out


def test_environment_of_an_app(spaced, repo):
    """hf-spaces.md §8.1: who and where the app is; uid 1000; its folder is writable."""
    code = server(body="json.dumps({'env': dict(os.environ), 'uid': os.getuid(), 'cwd': os.getcwd(), "
                       "'write': bool(open('made', 'w').write('x'))}).encode()")
    spaced.push_ok(repo(files={"Procfile": "web: python3 app.py\n", "app.py": code,
                               "README.md": header(title="Env test")}), "alice", "env-test")
    got = spaced.get_ok("alice", "env-test").json()
    env = got["env"]
    assert got["uid"] == 1000 and got["cwd"] == "/app" and got["write"]
    assert env["SPACE_ID"] == "alice/env-test"
    assert env["SPACE_AUTHOR_NAME"] == "alice" and env["SPACE_REPO_NAME"] == "env-test"
    assert env["SPACE_TITLE"] == "Env test"
    assert env["SPACE_HOST"].startswith("alice-env-test.localhost")
    assert env["HOME"] == "/home/user" and env["PORT"].isdigit()
    assert re.fullmatch(r"[0-9a-f]{24}", env["SPACE_CREATOR_USER_ID"])
    assert env["CPU_CORES"] and env["MEMORY"] and env["ACCELERATOR"] == "none"
    assert not any(word in key for key in env for word in ("TOKEN", "SECRET", "SPACED_"))


def test_second_push_of_code_installs_nothing(spaced, repo):
    work = repo("flask")
    first = spaced.push_ok(work, "alice", "cached")
    work.commit("another line", {"templates/index.html": "<h1>Second edition</h1>"})
    second = spaced.push_ok(work, "alice", "cached")
    assert "CACHED" in second, f"first:\n{first}\nsecond:\n{second}"
    assert "Second edition" in spaced.get("alice", "cached").text


def test_two_spaces_share_a_dependency_layer(spaced, repo):
    spaced.push_ok(repo("flask"), "alice", "shared-one")
    assert "CACHED" in spaced.push_ok(repo("flask"), "alice", "shared-two")


# --- static

def test_static_serving(spaced, repo):
    spaced.push_ok(repo("static"), "alice", "files")
    page = spaced.get("alice", "files")
    assert page.headers["Content-Type"].startswith("text/html")
    etag = page.headers["ETag"]
    assert spaced.get("alice", "files", headers={"If-None-Match": etag}).status == 304
    css = spaced.get("alice", "files", "/style.css")
    assert css.headers["Content-Type"].startswith("text/css")
    assert spaced.get("alice", "files", "/logo.svg").headers["Content-Type"].startswith("image/svg+xml")
    part = spaced.get("alice", "files", "/style.css", headers={"Range": "bytes=0-9"})
    assert part.status == 206 and part.body == css.body[:10]
    assert part.headers["Content-Range"] == f"bytes 0-9/{len(css.body)}"
    assert spaced.get("alice", "files", "/style.css", headers={"Range": "bytes=999999-"}).status == 416
    packed = spaced.get("alice", "files", "/", headers={"Accept-Encoding": "gzip"})
    if packed.headers["Content-Encoding"] == "gzip":
        import gzip
        assert gzip.decompress(packed.body) == page.body
    missing = spaced.get("alice", "files", "/nowhere")
    assert missing.status == 404 and "404.html" in missing.text
    assert "A folder is answered" in spaced.get("alice", "files", "/about/").text
    assert spaced.get("alice", "files", "/about").status in (301, 302, 307, 308)
    for hidden in ("/.git/config", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/about/../../x"):
        assert spaced.get("alice", "files", hidden).status in (400, 403, 404)
    head = spaced.get("alice", "files", method="HEAD")
    assert head.status == 200 and head.body == b"" and int(head.headers["Content-Length"]) == len(page.body)


def test_static_has_no_process(spaced, repo):
    spaced.push_ok(repo("static"), "alice", "no-process")
    assert spaced.stage("alice", "no-process") == "RUNNING"
    runtime = spaced.runtime("alice", "no-process")
    assert not runtime.get("pids")


# --- failures: the stage, a sentence that says what to do, the log; the running release goes on

def test_a_failed_build_keeps_the_running_release(spaced, repo):
    work = repo(files=app_files("version one"))
    spaced.push_ok(work, "alice", "keeps")
    bad = work.commit("bad", {"requirements.txt": "no-such-package-zzqx==1.0\n"})
    out = spaced.push(work, "alice", "keeps").stdout
    assert "no-such-package-zzqx" in out
    assert spaced.get("alice", "keeps").text == "version one"
    assert work.git("ls-remote", spaced.remote("alice", "keeps"), "refs/heads/main").split()[0] == bad
    assert spaced.stage("alice", "keeps") == "RUNNING", "the old release serves"
    assert spaced.ctl_json("build", "list", "alice/keeps")[0]["state"] == "failed"
    assert "no-such-package-zzqx" in spaced.logs("alice", "keeps", build=True)
    work.commit("good again", {"requirements.txt": "", "app.py": server("version three")})
    spaced.push_ok(work, "alice", "keeps")
    assert spaced.get("alice", "keeps").text == "version three"
    assert spaced.stage("alice", "keeps") == "RUNNING"


FAILURES = {
    "unsatisfiable-requirement": (
        {**app_files(), "requirements.txt": "flask==0.0.0.1\n"}, "BUILD_ERROR", "flask"),
    "missing-app-file": (
        {"README.md": header(sdk="gradio", app_file="main.py"), "other.py": ""}, "NO_APP_FILE", "main.py"),
    "missing-static-page": (
        {"README.md": header(sdk="static", app_file="site/index.html")}, "NO_APP_FILE", "site/index.html"),
    "no-python": (
        {"README.md": header(sdk="gradio", python_version='"3.2"'), "app.py": server()}, None, "3.2"),
    "docker": (
        {"README.md": header(sdk="docker"), "Dockerfile": "FROM scratch\n"}, "CONFIG_ERROR", "docker"),
    "unknown-sdk": (
        {"README.md": header(sdk="shiny"), "app.py": server()}, "CONFIG_ERROR", "shiny"),
    "broken-header": (
        {"README.md": "---\nsdk: [static\n---\n", "index.html": "x"}, "CONFIG_ERROR", "README"),
    "nothing-to-run": (
        {"notes.txt": "hello\n"}, ("NO_APP_FILE", "CONFIG_ERROR"), ""),
    "exits": (
        {"Procfile": "web: python3 app.py\n", "app.py": "import sys\nprint('cannot go on', flush=True)\nsys.exit(3)\n"},
        "RUNTIME_ERROR", "cannot go on"),
    "wrong-port": (
        {"README.md": header(title="Wrong", startup_duration_timeout="8s"), **app_files(port=8000)},
        "RUNTIME_ERROR", "listening on 8000"),
    "never-listens": (
        {"README.md": header(title="Never", startup_duration_timeout="3s"), "Procfile": "web: sleep 600\n"},
        "RUNTIME_ERROR", ""),
    "failing-build-command": (
        {"README.md": header(sdk="static", app_build_command="echo about to fail && false"), "index.html": "x"},
        "BUILD_ERROR", "about to fail"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failure(spaced, repo, name):
    files, stage, words = FAILURES[name]
    out = spaced.push(repo(files=files), "alice", name).stdout
    assert "main -> main" in out, f"the commit was not accepted:\n{out}"
    now = spaced.wait_stage("alice", name, stage or ("BUILD_ERROR", "CONFIG_ERROR"), 60)
    assert words.lower() in out.lower(), out
    message = spaced.runtime("alice", name).get("errorMessage") or ""
    assert len(message) > 10, f"no sentence for {now}: {spaced.show('alice', name)}"
    page = spaced.get("alice", name)
    assert page.status in (404, 500, 502, 503), page.status
    assert now in page.text or message[:30] in page.text or name in page.text, page.text


def test_a_crash_later_is_a_stage_with_the_log(spaced, repo):
    code = server(body="b'up' if self.path != '/die' else os._exit(7)")
    spaced.push_ok(repo(files={"Procfile": "web: python3 app.py\n", "app.py": code}), "alice", "crash")
    assert spaced.get("alice", "crash").text == "up"
    assert spaced.get("alice", "crash", "/die").status in (502, 503)
    # One crash may be answered by a restart; the app serves again or says why not.
    wait_for("another start or an error", lambda: spaced.get("alice", "crash").status in (200, 503))


# --- the manners of a push

def test_nowait(spaced, repo):
    work = repo(files=app_files("later"))
    with held_up(spaced):
        out = spaced.push_ok(work, "alice", "nowait", "main", "-o", "nowait", timeout=120)
        assert spaced.app_url("alice", "nowait") in out or "build" in out.lower(), out
        assert spaced.told("alice", "nowait")["stage"] != "RUNNING", f"the push waited: {out}"
    spaced.wait_stage("alice", "nowait", "RUNNING")
    assert spaced.get("alice", "nowait").text == "later"


def test_client_that_hangs_up(spaced, repo):
    work = repo(files={"Procfile": "web: sleep 2 && python3 app.py\n", "app.py": server("without you")})
    push = subprocess.Popen(["git", "push", spaced.remote("alice", "hangup"), "main"], cwd=work.path, env=work.env,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    seen = ""
    for line in push.stdout:
        seen += line
        if "queued" in line.lower() or "received" in line.lower():
            break
    push.kill()
    push.wait()
    spaced.wait_stage("alice", "hangup", "RUNNING")
    assert spaced.get("alice", "hangup").text == "without you", seen


def test_only_main_deploys(spaced, repo):
    work = repo(files=app_files("from main"))
    spaced.push_ok(work, "alice", "branches")
    work.git("checkout", "-q", "-b", "feature")
    work.commit("other", {"app.py": server("from feature")})
    work.git("tag", "v1")
    out = spaced.push_ok(work, "alice", "branches", "feature", "--tags")
    assert "main" in out, f"does not say that only main deploys:\n{out}"
    assert spaced.get("alice", "branches").text == "from main"
    refs = work.git("ls-remote", spaced.remote("alice", "branches"))
    assert "refs/heads/feature" in refs and "refs/tags/v1" in refs


def test_rights(spaced, repo):
    spaced.token("bob")
    work = repo(files=static_files("mine"))
    spaced.push_ok(work, "alice", "rights")
    out = spaced.push(work, "alice", "rights", user="bob")
    assert out.returncode != 0 and "403" in out.stdout, out.stdout
    out = spaced.push(work, "alice", "rights", token="hf_" + "x" * 34)
    assert out.returncode != 0 and ("401" in out.stdout or "Authentication failed" in out.stdout), out.stdout
    out = spaced.push(work, "nobody-here", "x", user="bob")
    assert out.returncode != 0
    for name in ("-rf", "a--b", "x.git.lock", "%2e%2e", "a b"):
        assert spaced.push(work, "alice", name).returncode != 0, name


def test_dot_git_suffix_is_the_same_repository(spaced, repo):
    work = repo(files=static_files("suffix"))
    spaced.push_ok(work, "alice", "suffix")
    assert work.git("ls-remote", spaced.remote("alice", "suffix") + ".git", "refs/heads/main").split()[0] == work.head()


def test_force_delete_and_clone(spaced, repo, tmp_path):
    work = repo(files=static_files("one"))
    spaced.push_ok(work, "alice", "forced")
    work.git("commit", "-q", "--amend", "-m", "rewritten")
    assert spaced.push(work, "alice", "forced").returncode != 0, "a rewrite needs --force"
    spaced.push_ok(work, "alice", "forced", "main", "--force")
    spaced.push_ok(work, "alice", "forced", "main:refs/heads/side")
    spaced.push_ok(work, "alice", "forced", ":refs/heads/side")
    assert "side" not in work.git("ls-remote", spaced.remote("alice", "forced"))
    work.git("clone", "-q", spaced.remote("alice", "forced"), str(tmp_path / "clone"))
    assert (tmp_path / "clone" / "index.html").read_text() == "one"
    work.git("clone", "-q", "--depth", "1", spaced.remote("alice", "forced"), str(tmp_path / "shallow"))


def test_a_newer_push_wins(spaced, repo):
    """Two pushes in a row while the first one still builds: the second is what is served."""
    work = repo(files={"Procfile": "web: python3 app.py\n", "app.py": server("old"),
                       "requirements.txt": "itsdangerous==2.2.0\n"})
    spaced.push_ok(work, "alice", "race", "main", "-o", "nowait")
    work.commit("newer", {"app.py": server("new")})
    spaced.push_ok(work, "alice", "race")
    wait_for("the newer release", lambda: spaced.get("alice", "race").text == "new", 60)


@pytest.mark.deadline(300)
def test_redeploy_under_load_drops_nothing(spaced, repo):
    work = repo(files=app_files("v0"))
    spaced.push_ok(work, "alice", "load")
    stop, wrong, seen = threading.Event(), [], set()

    def visitor():
        while not stop.is_set():
            try:
                answer = spaced.get("alice", "load")
                seen.add(answer.text[:20])
                if answer.status != 200:
                    wrong.append((answer.status, answer.text[:200]))
            except OSError as error:
                wrong.append(repr(error))

    visitors = [threading.Thread(target=visitor) for _ in range(4)]
    for v in visitors:
        v.start()
    try:
        wait_for("v0", lambda: "v0" in seen)
        for i in (1, 2, 3):
            work.commit(f"v{i}", {"app.py": server(f"v{i}")})
            spaced.push_ok(work, "alice", "load")
            wait_for(f"v{i}", lambda: f"v{i}" in seen)
    finally:
        stop.set()
        for v in visitors:
            v.join()
    assert not wrong, wrong[:5]
    assert {"v0", "v1", "v2", "v3"} <= seen


# --- life after the push

def test_restart_and_delete(spaced, repo):
    spaced.push_ok(repo("hello"), "alice", "restarted")
    before = spaced.get_ok("alice", "restarted", "/api/hello").json()
    assert before["space"] == "alice/restarted"
    spaced.spacectl("space", "restart", "alice/restarted", check=True)
    wait_for("a younger app", lambda: (a := spaced.get("alice", "restarted", "/api/hello")).status == 200
             and a.json()["started"] != before["started"])
    assert "listening on" in spaced.logs("alice", "restarted")
    spaced.spacectl("space", "delete", "alice/restarted", check=True)
    wait_for("its host to be unknown", lambda: spaced.get("alice", "restarted").status == 404)
    assert spaced.spacectl("space", "show", "alice/restarted")[0] != 0


def test_unknown_host(spaced):
    for accept, kind in (("text/html,*/*", "text/html"), ("application/json", "application/json"), ("*/*", "text/plain")):
        answer = spaced.request("GET", "/", host="nobody-nothing.localhost", headers={"Accept": accept})
        assert answer.status == 404 and answer.headers["Content-Type"].startswith(kind)
