"""The JSON API of the apex host: shapes, rights, errors, logs; by plain HTTP and by stock huggingface_hub."""
import base64
import json
import os
import re
import subprocess
import textwrap

import pytest

from harness import wait_for

PAGE = {"README.md": "---\ntitle: A <b>page</b>\nemoji: 🌻\nsdk: static\ncolorFrom: red\ntags: [demo]\n---\n",
        "index.html": "<h1>hi</h1>\n"}


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def api(spaced, method, path, user=None, body=None, headers=None):
    all_headers = {**(bearer(spaced.token(user)) if user else {}), **(headers or {})}
    if body is not None:
        all_headers["Content-Type"] = "application/json"
    return spaced.request(method, path, headers=all_headers, body=None if body is None else json.dumps(body))


@pytest.fixture(scope="module")
def page(spaced, tmp_path_factory):
    """A static Space of alice that runs."""
    from harness import Repo

    work = Repo(tmp_path_factory.mktemp("api") / "page", files=PAGE)
    spaced.push_ok(work, "alice", "Api_Page")
    spaced.wait_stage("alice", "Api_Page", "RUNNING")
    return work


@pytest.fixture(scope="module")
def secret(spaced):
    """A private Space of alice."""
    made = api(spaced, "POST", "/api/repos/create", "alice",
               {"name": "api-secret", "type": "space", "sdk": "gradio", "private": True})
    assert made.status in (200, 409), made.text
    return "alice/api-secret"


# --- who

def test_whoami(spaced):
    me = api(spaced, "GET", "/api/whoami-v2", "alice").json()
    assert me["name"] == "alice" and me["type"] == "user" and re.fullmatch("[0-9a-f]{24}", me["id"])
    assert me["auth"]["accessToken"]["role"] == "write" and me["orgs"] == []


def test_whoami_without_or_with_a_wrong_token(spaced):
    assert api(spaced, "GET", "/api/whoami-v2").status == 401
    for wrong in ("Bearer hf_wrong", "Bearer ", "Basic !!!", "Basic " + base64.b64encode(b"nocolon").decode(), "Digest x"):
        answer = api(spaced, "GET", "/api/whoami-v2", headers={"Authorization": wrong})
        assert answer.status == 401, wrong
        assert answer.headers["X-Error-Message"] == "Invalid credentials in Authorization header"


def test_basic_with_the_token_as_password(spaced):
    basic = base64.b64encode(f"anyone:{spaced.token()}".encode()).decode()
    assert api(spaced, "GET", "/api/whoami-v2", headers={"Authorization": f"Basic {basic}"}).json()["name"] == "alice"


def test_basic_from_another_site_changes_nothing(spaced, page):
    """A browser sends Basic credentials by itself, also for a request that an app made it send."""
    basic = {"Authorization": "Basic " + base64.b64encode(f"a:{spaced.token()}".encode()).decode()}
    path = "/api/spaces/alice/Api_Page/restart"
    assert api(spaced, "POST", path, headers={**basic, "Origin": spaced.app_url("mallory", "x")}).status == 403
    assert api(spaced, "POST", path, headers={**basic, "Origin": "null"}).status == 403
    assert api(spaced, "GET", "/api/whoami-v2", headers={**basic, "Origin": "http://evil.example"}).status == 200


def test_many_wrong_tokens_are_slowed_down(start_spaced):
    daemon = start_spaced()
    token = daemon.token()
    seen = [daemon.request("GET", "/api/whoami-v2", headers=bearer(f"hf_{i:034d}")) for i in range(40)]
    assert [a.status for a in seen[:30]] == [401] * 30
    assert seen[-1].status == 429 and 1 <= int(seen[-1].headers["Retry-After"]) <= 60
    # The right one still works: a guesser cannot lock out a neighbour.
    assert daemon.request("GET", "/api/whoami-v2", headers=bearer(token)).status == 200


# --- what is there

def test_space_info(spaced, page):
    info = api(spaced, "GET", "/api/spaces/alice/Api_Page").json()
    assert info["id"] == "alice/Api_Page" and info["author"] == "alice" and info["sdk"] == "static"
    assert re.fullmatch("[0-9a-f]{24}", info["_id"]) and info["likes"] == 0 and info["private"] is False
    assert info["subdomain"] == "alice-api-page" and info["host"] == f"http://alice-api-page.localhost:{spaced.port}"
    assert info["sha"] == page.head() and info["cardData"]["emoji"] == "🌻" and "demo" in info["tags"]
    assert info["runtime"]["stage"] == "RUNNING" and info["runtime"]["sha"] == page.head()
    assert isinstance(info["runtime"]["hardware"], dict)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", info["lastModified"])
    # What is for the owner only is not told to others.
    assert "spaced" not in info and "spaced" in api(spaced, "GET", "/api/spaces/alice/Api_Page", "alice").json()
    assert api(spaced, "GET", "/api/spaces/ALICE/api_page").json()["id"] == "alice/Api_Page"


def test_revisions(spaced, page):
    for rev in ("HEAD", "main", "refs%2Fheads%2Fmain", page.head(), page.head()[:7]):
        answer = api(spaced, "GET", f"/api/spaces/alice/Api_Page/revision/{rev}")
        assert answer.status == 200 and answer.json()["sha"] == page.head(), rev
    for rev in ("nope", "0" * 40, "00000", "..", "main%40%7B1%7D", "%3A%2Fx"):
        gone = api(spaced, "GET", f"/api/spaces/alice/Api_Page/revision/{rev}")
        assert gone.status == 404 and gone.headers["X-Error-Code"] == "RevisionNotFound", rev


def test_expand(spaced, page):
    answer = api(spaced, "GET", "/api/spaces/alice/Api_Page?expand=likes&expand[]=sdk&expand%5B%5D=private").json()
    assert set(answer) == {"id", "_id", "likes", "sdk", "private"}
    wrong = api(spaced, "GET", "/api/spaces/alice/Api_Page?expand=secrets")
    assert wrong.status == 400 and wrong.json()["error"].startswith('"expand" must be one of [')


def test_host_and_runtime(spaced, page):
    assert api(spaced, "GET", "/api/spaces/alice/Api_Page/host").json()["host"] == spaced.app_url("alice", "Api_Page")
    assert api(spaced, "GET", "/api/spaces/alice/Api_Page/runtime").json()["stage"] == "RUNNING"


def test_missing_and_private_look_alike(spaced, secret):
    spaced.token("bob")

    def seen(path, user):
        answer = api(spaced, "GET", path, user)
        return answer.status, answer.headers["X-Error-Code"], answer.body

    for user, status in ((None, 401), ("bob", 404)):
        private, missing = seen(f"/api/spaces/{secret}", user), seen("/api/spaces/alice/no-such-space", user)
        assert private == missing and private[:2] == (status, "RepoNotFound")
        for part in ("runtime", "logs/run", "builds", "events", "releases", "host"):
            assert seen(f"/api/spaces/{secret}/{part}", user) == seen(f"/api/spaces/alice/no-such-space/{part}", user)
    assert api(spaced, "GET", f"/api/spaces/{secret}", "alice").json()["private"] is True


def test_only_the_owner_writes(spaced, page):
    spaced.token("bob")
    for method, part in (("POST", "restart"), ("POST", "pause"), ("GET", "logs/run"), ("GET", "builds"), ("GET", "events")):
        assert api(spaced, method, f"/api/spaces/alice/Api_Page/{part}").status == 401, part
        refused = api(spaced, method, f"/api/spaces/alice/Api_Page/{part}", "bob")
        assert refused.status == 403 and refused.headers["X-Error-Message"], part
    gone = api(spaced, "DELETE", "/api/repos/delete", "bob", {"name": "Api_Page", "organization": "alice", "type": "space"})
    assert gone.status == 403
    for method, path in (("GET", "status"), ("GET", "users"), ("POST", "users"), ("GET", "tokens"), ("GET", "builds")):
        assert api(spaced, method, f"/api/admin/{path}").status == 401
        assert api(spaced, method, f"/api/admin/{path}", "bob").status == 403


def test_an_admin_may_do_everything(spaced, secret):
    spaced.spacectl("user", "add", "chief", "--admin")
    assert api(spaced, "GET", f"/api/spaces/{secret}", "chief").status == 200
    assert api(spaced, "GET", "/api/admin/status", "chief").json()["users"] >= 2
    assert secret in [s["id"] for s in api(spaced, "GET", "/api/spaces", "chief").json()]


# --- lists

def test_list_filters_and_pages(start_spaced):
    daemon = start_spaced()
    for user, count in (("alice", 5), ("bob", 3)):
        for i in range(count):
            made = api(daemon, "POST", "/api/repos/create", user,
                       {"name": f"app-{i}", "type": "space", "private": i == 0})
            assert made.status == 200, made.text

    def ids(path, user=None):
        return [s["id"] for s in api(daemon, "GET", path, user).json()]

    assert len(ids("/api/spaces")) == 6 and len(ids("/api/spaces", "alice")) == 7
    assert ids("/api/spaces?author=bob") == ["bob/app-2", "bob/app-1"]
    assert ids("/api/spaces?author=nobody") == []
    assert sorted(ids("/api/spaces?search=APP-1")) == ["alice/app-1", "bob/app-1"]
    assert ids("/api/spaces?search=%25") == []
    path, seen, pages = "/api/spaces?limit=4&search=a%26b%20%3E", [], 0
    assert "Link" not in api(daemon, "GET", path).headers
    path = "/api/spaces?limit=4&search=p"
    while path:
        answer = api(daemon, "GET", path)
        seen += [s["id"] for s in answer.json()]
        pages += 1
        link = re.fullmatch(r'<(http://localhost:\d+)(/[^>]+)>; rel="next"', answer.headers.get("Link", ""))
        path = link[2] if link else None
        assert not link or link[1] == daemon.url
    assert pages == 2 and sorted(seen) == sorted(ids("/api/spaces"))


def test_first_page(spaced, page, secret):
    answer = spaced.request("GET", "/")
    assert answer.status == 200 and "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert spaced.app_url("alice", "Api_Page") in answer.text and "🌻" in answer.text
    # The title comes from an outsider's README.
    assert "A &lt;b&gt;page&lt;/b&gt;" in answer.text and "<b>page" not in answer.text
    assert "api-secret" not in answer.text and "<!--" not in answer.text.replace("<!--endpoint", "")
    assert f"{spaced.url}/spaces/YOUR-NAME" in answer.text


def test_page_of_a_space(spaced, page, secret):
    answer = spaced.request("GET", "/spaces/alice/Api_Page", headers={"Accept": "text/html"})
    assert answer.status == 200 and f"git clone {spaced.url}/spaces/alice/Api_Page" in answer.text
    assert "<b>page" not in answer.text
    hidden = spaced.request("GET", f"/spaces/{secret}", headers={"Accept": "text/html"})
    assert hidden.status == 401 and hidden.headers["WWW-Authenticate"].startswith("Basic")
    assert hidden.headers["Content-Type"].startswith("text/html")


def test_assets(spaced):
    css = spaced.request("GET", "/assets/style.css")
    assert css.status == 200 and css.headers["Content-Type"].startswith("text/css")
    assert spaced.request("GET", "/assets/style.css", headers={"If-None-Match": css.headers["ETag"]}).status == 304
    for path in ("/assets/index.html", "/assets/..%2Fschema%2F0001_init.sql", "/assets/nope.css"):
        assert spaced.request("GET", path).status == 404, path


def test_edges_of_the_router(spaced):
    assert api(spaced, "OPTIONS", "/api/whoami-v2").status == 204
    assert "Authorization" in api(spaced, "OPTIONS", "/api/spaces").headers["Access-Control-Allow-Headers"]
    assert api(spaced, "GET", "/api/spaces").headers["Access-Control-Allow-Origin"] == "*"
    wrong = api(spaced, "DELETE", "/api/spaces")
    assert wrong.status == 405 and "GET" in wrong.headers["Allow"]
    assert api(spaced, "GET", "/api/nothing").status == 404
    assert api(spaced, "HEAD", "/api/telemetry/x").status == 404
    assert api(spaced, "GET", "/api/agent-harnesses").json() == {"standardEnvVars": [], "harnesses": {}}
    bad = spaced.request("POST", "/api/repos/create", headers=bearer(spaced.token()), body="{no json")
    assert bad.status == 400 and "JSON" in bad.json()["error"]
    assert spaced.request("POST", "/api/repos/create", headers=bearer(spaced.token()), body="[]").status == 400
    big = spaced.request("POST", "/api/repos/create", headers=bearer(spaced.token()), body="x" * (2 << 20))
    assert big.status == 413


# --- making and deleting

def test_create_and_delete(spaced):
    body = {"name": "made", "type": "space", "sdk": "gradio", "organization": None}
    first = api(spaced, "POST", "/api/repos/create", "alice", body)
    assert first.status == 200 and first.json()["name"] == "alice/made"
    assert first.json()["url"] == f"{spaced.url}/spaces/alice/made"
    again = api(spaced, "POST", "/api/repos/create", "alice", body)
    assert again.status == 409 and again.json()["url"] == first.json()["url"]
    assert api(spaced, "GET", "/api/spaces/alice/made/runtime").json()["stage"] == "NO_APP_FILE"
    gone = api(spaced, "DELETE", "/api/repos/delete", "alice", {"name": "made", "organization": "alice", "type": "space"})
    assert gone.status == 200 and gone.text == "OK"
    assert api(spaced, "GET", "/api/spaces/alice/made", "alice").status == 404
    assert api(spaced, "DELETE", "/api/repos/delete", "alice", {"name": "made", "type": "space"}).status == 404

    def made_again():
        return api(spaced, "POST", "/api/repos/create", "alice", body).status == 200

    wait_for("the name to be free again", made_again)


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b/c", "-rf", "x.git", "a--b", "%2e%2e", "🚀", "x" * 97, "a b"])
def test_bad_names_are_refused(spaced, name):
    answer = api(spaced, "POST", "/api/repos/create", "alice", {"name": name, "type": "space"})
    assert answer.status in (400, 403) and answer.json()["error"], answer.text


def test_only_ones_own_namespace(spaced):
    spaced.token("bob")
    assert api(spaced, "POST", "/api/repos/create", "bob",
               {"name": "x", "organization": "alice", "type": "space"}).status == 403
    assert api(spaced, "POST", "/api/repos/create", None, {"name": "x", "type": "space"}).status == 401
    assert api(spaced, "POST", "/api/repos/create", "alice", {"name": "x"}).status == 501


def test_spaces_per_user_are_limited(start_spaced, repo):
    daemon = start_spaced(spaces_per_user=1)
    assert api(daemon, "POST", "/api/repos/create", "alice", {"name": "one", "type": "space"}).status == 200
    assert api(daemon, "POST", "/api/repos/create", "alice", {"name": "two", "type": "space"}).status == 403
    refused = daemon.push(repo(files=PAGE), "alice", "two")
    assert refused.returncode != 0


# --- logs and builds

def events(text):
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def test_build_log_as_events_ends_with_the_build(spaced, page):
    answer = api(spaced, "GET", "/api/spaces/alice/Api_Page/logs/build", "alice")
    assert answer.status == 200 and answer.headers["Content-Type"] == "text/event-stream"
    seen = events(answer.text)
    assert seen and all(set(e) == {"data", "timestamp"} and "\n" not in e["data"] for e in seen)
    stamps = [e["timestamp"] for e in seen]
    assert stamps == sorted(stamps) and stamps[0].endswith("Z")
    # A reconnect replays the same events; `tail` gives the last of them.
    assert events(api(spaced, "GET", "/api/spaces/alice/Api_Page/logs/build", "alice").text) == seen
    assert events(api(spaced, "GET", "/api/spaces/alice/Api_Page/logs/build?tail=2", "alice").text) == seen[-2:]
    plain = api(spaced, "GET", "/api/spaces/alice/Api_Page/logs/build", "alice", headers={"Accept": "text/plain"})
    assert plain.headers["Content-Type"].startswith("text/plain")
    assert plain.text.splitlines() == [e["data"] for e in seen]
    assert api(spaced, "GET", "/api/spaces/alice/Api_Page/logs/other", "alice").status == 404
    assert api(spaced, "GET", f"/api/spaces/alice/Api_Page/logs/build?build={'0' * 24}", "alice").status == 404


def test_builds_releases_events(spaced, page):
    builds = api(spaced, "GET", "/api/spaces/alice/Api_Page/builds", "alice").json()
    done = [b for b in builds if b["state"] == "succeeded"]
    assert done and done[0]["commit"] == page.head() and done[0]["space"] == "alice/Api_Page"
    for path in (f"/api/spaces/alice/Api_Page/builds/{done[0]['id']}", f"/api/builds/{done[0]['id']}"):
        assert api(spaced, "GET", path, "alice").json()["id"] == done[0]["id"]
    spaced.token("bob")
    assert api(spaced, "GET", f"/api/builds/{done[0]['id']}", "bob").status == 404
    assert api(spaced, "POST", f"/api/builds/{done[0]['id']}/cancel", "alice").status == 409
    releases = api(spaced, "GET", "/api/spaces/alice/Api_Page/releases", "alice").json()
    assert [r["commit"] for r in releases if r["current"]] == [page.head()]
    kinds = [e["kind"] for e in api(spaced, "GET", "/api/spaces/alice/Api_Page/events", "alice").json()]
    assert "created" in kinds and "push" in kinds


# --- stock huggingface_hub

HF = """
import json, os, sys
from huggingface_hub import HfApi
from huggingface_hub.utils import RepositoryNotFoundError, RevisionNotFoundError
api = HfApi(endpoint=os.environ["HF_ENDPOINT"], token=os.environ["TOKEN"])
anonymous = HfApi(endpoint=os.environ["HF_ENDPOINT"], token=False)
"""


@pytest.fixture(scope="module")
def hf(spaced, venv):
    def run(script, user="alice", package="huggingface_hub"):
        env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        env.update(HF_ENDPOINT=spaced.url, TOKEN=spaced.token(user), HF_HUB_DISABLE_TELEMETRY="1",
                   HF_HOME=str(spaced.home / "hf"), NO_PROXY="*")
        done = subprocess.run([venv(package), "-c", HF + textwrap.dedent(script)], env=env, text=True,
                              capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    return run


@pytest.mark.deadline(600)
@pytest.mark.parametrize("package", ["huggingface_hub", "huggingface_hub==0.30.2"])
def test_huggingface_hub_reads(spaced, page, secret, hf, package):
    seen = hf("""
        info = api.space_info("alice/Api_Page")
        runtime = api.get_space_runtime("alice/Api_Page")
        out = dict(name=api.whoami()["name"], id=info.id, host=info.host, sha=info.sha, sdk=info.sdk,
                   emoji=info.card_data["emoji"], stage=runtime.stage, created=info.created_at.isoformat(),
                   exists=api.repo_exists("alice/Api_Page", repo_type="space"),
                   missing=api.repo_exists("alice/nothing", repo_type="space"),
                   secret=api.repo_exists("alice/api-secret", repo_type="space"),
                   hidden=anonymous.repo_exists("alice/api-secret", repo_type="space"),
                   listed=[s.id for s in api.list_spaces(author="alice")],
                   few=[s.id for s in api.list_spaces(limit=1)],
                   expanded=api.space_info("alice/Api_Page", expand=["likes", "runtime"]).likes)
        for call, error in ((lambda: anonymous.space_info("alice/api-secret"), RepositoryNotFoundError),
                            (lambda: api.space_info("alice/nothing"), RepositoryNotFoundError),
                            (lambda: api.space_info("alice/Api_Page", revision="nope"), RevisionNotFoundError)):
            try:
                call()
                raise SystemExit("no error")
            except error:
                pass
        print(json.dumps(out))
    """, package=package)
    assert seen["name"] == "alice" and seen["id"] == "alice/Api_Page" and seen["sdk"] == "static"
    assert seen["host"] == spaced.app_url("alice", "Api_Page") and seen["sha"] == page.head()
    assert seen["emoji"] == "🌻" and seen["stage"] == "RUNNING"
    assert (seen["exists"], seen["missing"], seen["secret"], seen["hidden"]) == (True, False, True, False)
    assert {"alice/Api_Page", "alice/api-secret"} <= set(seen["listed"]) and len(seen["few"]) == 1
    assert seen["expanded"] == 0


@pytest.mark.deadline(600)
def test_huggingface_hub_writes(spaced, hf):
    seen = hf("""
        first = api.create_repo("alice/by-hub", repo_type="space", space_sdk="docker", exist_ok=True)
        again = api.create_repo("alice/by-hub", repo_type="space", space_sdk="docker", exist_ok=True)
        bare = api.create_repo("by-hub", repo_type="space", space_sdk="docker", exist_ok=True)
        out = dict(id=first.repo_id, same=str(first) == str(again) == str(bare), type=first.repo_type)
        api.delete_repo("alice/by-hub", repo_type="space")
        out["gone"] = not api.repo_exists("alice/by-hub", repo_type="space")
        api.delete_repo("alice/by-hub", repo_type="space", missing_ok=True)
        print(json.dumps(out))
    """)
    assert seen == {"id": "alice/by-hub", "same": True, "type": "space", "gone": True}


@pytest.mark.deadline(600)
def test_huggingface_hub_restarts_pauses_and_reads_logs(spaced, hf, repo):
    work = repo("hello")
    spaced.push_ok(work, "alice", "hub-life")
    spaced.wait_stage("alice", "hub-life", "RUNNING")
    seen = hf("""
        import time
        out = dict(restart=api.restart_space("alice/hub-life").stage)
        until = time.time() + 60
        while api.get_space_runtime("alice/hub-life").stage != "RUNNING" and time.time() < until:
            time.sleep(0.1)
        out["again"] = api.get_space_runtime("alice/hub-life").stage
        if hasattr(api, "fetch_space_logs"):
            out["build"] = "".join(api.fetch_space_logs("alice/hub-life", build=True, follow=True))
        out["pause"] = api.pause_space("alice/hub-life").stage
        if hasattr(api, "fetch_space_logs"):
            out["run"] = "".join(api.fetch_space_logs("alice/hub-life", follow=True))
        print(json.dumps(out))
    """)
    assert seen["restart"] in ("APP_STARTING", "RUNNING_APP_STARTING", "RUNNING") and seen["again"] == "RUNNING"
    assert seen["pause"] == "PAUSED"
    assert "Build" in seen.get("build", "Build") and "listening" in seen.get("run", "listening")
