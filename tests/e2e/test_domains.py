"""Host names of Spaces' own: served like the one below the server's domain, nobody else's, and as private as the Space."""
import json
import urllib.parse

import pytest

from apps import app_files, static_files
from harness import Repo, wait_for

PAGE = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def daemon(spaced, tmp_path_factory):
    work = Repo(tmp_path_factory.mktemp("domains") / "repo", files=app_files(body="self.headers['Host'].encode()"))
    spaced.push_ok(work, "alice", "own")
    spaced.push_ok(Repo(tmp_path_factory.mktemp("domains") / "repo", files=static_files("pages")), "bob", "pages")
    yield spaced
    for row in spaced.ctl_json("domain", "list"):
        spaced.spacectl("domain", "remove", row["space"], row["domain"], check=True)


@pytest.fixture
def domain(daemon):
    """Gives Spaces domains, and takes them away again."""
    given = []

    def add(name, space="alice/own"):
        answer = daemon.ctl_json("domain", "add", space, name)
        given.append((space, answer["domain"]))
        return answer

    yield add
    for space, name in given:
        daemon.spacectl("domain", "remove", space, name)


def api(daemon, method, path, token, body=None):
    return daemon.request(method, path, headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
                          body=None if body is None else json.dumps(body))


def test_served_listed_and_gone_again(daemon, domain):
    assert daemon.request("GET", "/", host="demo.example.org").status == 404
    answer = domain("Demo.Example.ORG.")
    assert answer == {"domain": "demo.example.org", "record": "demo.example.org. CNAME alice-own.localhost."}
    got = daemon.request("GET", "/", host="demo.example.org")
    assert got.status == 200 and got.text == f"demo.example.org:{daemon.port}"
    assert daemon.get("alice", "own").status == 200  # beside the other
    domain("bücher.example")
    assert daemon.request("GET", "/", host="xn--bcher-kva.example").status == 200

    rows = daemon.ctl_json("domain", "list", "alice/own")
    assert [r["domain"] for r in rows] == ["demo.example.org", "xn--bcher-kva.example"]
    assert rows[0]["space"] == "alice/own" and rows == daemon.ctl_json("domain", "list")
    assert "demo.example.org, xn--bcher-kva.example" in daemon.spacectl("space", "show", "alice/own", check=True)[1]
    domains = api(daemon, "GET", "/api/spaces/alice/own/runtime", daemon.token()).json()["domains"]
    assert domains[1:] == [{"domain": name, "stage": "READY", "isCustom": True}
                           for name in ("demo.example.org", "xn--bcher-kva.example")]
    assert any(e["kind"] == "domain added" for e in daemon.ctl_json("space", "events", "alice/own"))

    daemon.spacectl("domain", "remove", "alice/own", "DEMO.example.org", check=True)
    assert daemon.request("GET", "/", host="demo.example.org").status == 404
    assert daemon.spacectl("domain", "remove", "alice/own", "demo.example.org")[0] == 1


def test_wildcards_and_static_spaces(daemon, domain):
    domain("*.example.net", "bob/pages")
    for host in ("a.example.net", "x.y.example.net", "A.Example.Net."):
        assert daemon.request("GET", "/", host=host).text == "pages", host
    assert daemon.request("GET", "/", host="example.net").status == 404
    domain("deep.example.net", "bob/pages")  # one's own names may overlap


@pytest.mark.parametrize("name", ["localhost", "x.localhost", "alice-own.localhost", "*.localhost", "*.com", "10.0.0.1",
                                  "a_b.example.org", "a b.example.org", ""])
def test_names_that_nobody_gets(daemon, name):
    code, _, err = daemon.spacectl("domain", "add", "alice/own", name)
    assert code == 1 and name in err


def test_nobody_elses(daemon, domain):
    domain("demo.example.org")
    domain("*.shop.example.org")
    for name in ("demo.example.org", "*.example.org", "a.shop.example.org", "*.a.shop.example.org"):
        code, _, err = daemon.spacectl("domain", "add", "bob/pages", name)
        assert code == 1 and "another Space" in err, name
    assert daemon.spacectl("domain", "remove", "bob/pages", "demo.example.org")[0] == 1
    assert daemon.request("GET", "/", host="demo.example.org").status == 200


def test_who_adds_them(daemon, domain):
    """Admins; removing is the owner's right as well."""
    domain("demo.example.org")
    path = "/api/spaces/alice/own/domains"
    alice, bob = daemon.token("alice"), daemon.token("bob")
    refused = api(daemon, "POST", path, alice, {"domain": "more.example.org"})
    assert refused.status == 403 and "only an admin" in refused.text
    assert api(daemon, "POST", path, bob, {"domain": "more.example.org"}).status == 403
    assert api(daemon, "GET", path, bob).status == 403
    assert [d["domain"] for d in api(daemon, "GET", path, alice).json()] == ["demo.example.org"]
    assert api(daemon, "GET", "/api/admin/domains", alice).status == 403
    assert api(daemon, "DELETE", f"{path}/demo.example.org", bob).status == 403
    assert api(daemon, "DELETE", f"{path}/demo.example.org", alice).status == 200
    assert daemon.request("GET", "/", host="demo.example.org").status == 404
    page = daemon.request("GET", "/spaces/alice/own", headers={"Authorization": f"Bearer {alice}", **PAGE}).text
    assert "alice-own.localhost" in page and "spacectl domain add" in page


def test_owners_if_the_configuration_says_so(start_spaced, repo):
    daemon = start_spaced(domains_by="owners")
    daemon.push_ok(repo(files=static_files("first")), "alice", "own")
    path = "/api/spaces/alice/own/domains"
    assert api(daemon, "POST", path, daemon.token("alice"), {"domain": "a.example.org"}).status == 200
    assert api(daemon, "POST", path, daemon.token("alice"), {"domain": 1}).status == 400
    assert api(daemon, "POST", path, daemon.token("bob"), {"domain": "b.example.org"}).status == 403
    assert daemon.request("GET", "/", host="a.example.org").text == "first"
    # It stays through a restart, follows a deploy, and goes with its Space.
    daemon.restart()
    assert daemon.request("GET", "/", host="a.example.org").text == "first"
    daemon.push_ok(repo(files=static_files("second")), "alice", "own", "+main")
    assert daemon.request("GET", "/", host="a.example.org").text == "second"
    daemon.spacectl("space", "delete", "alice/own", "-y", check=True)
    wait_for("the domain to go", lambda: daemon.ctl_json("domain", "list") == [])
    gone = daemon.request("GET", "/", host="a.example.org")
    assert gone.status == 404 and "nothing at this address" in gone.text


def test_a_sleeping_space_wakes_at_a_wildcard(start_spaced, repo):
    """What is held is found again behind the wildcard that it came by."""
    daemon = start_spaced(freeze_after="1s")
    daemon.push_ok(repo(files=app_files("awake")), "alice", "own")
    daemon.spacectl("domain", "add", "alice/own", "*.example.org", check=True)
    daemon.wait_stage("alice", "own", "SLEEPING", 60)
    assert daemon.request("GET", "/", host="any.example.org").text == "awake"
    daemon.spacectl("space", "delete", "alice/own", "-y", check=True)


def sign_in(daemon, link, token):
    """Follows a refusal's link as a browser does, with the form; returns where it leads in the end."""
    query = urllib.parse.urlsplit(link).query
    form = {**dict(urllib.parse.parse_qsl(query)), "token": token}
    answer = daemon.request("POST", "/sign-in", body=urllib.parse.urlencode(form),
                            headers={"Content-Type": "application/x-www-form-urlencoded", **PAGE})
    assert answer.status == 303, answer.text
    session = answer.headers["Set-Cookie"].split(";")[0]
    answer = daemon.request("GET", answer.headers["Location"], headers={"Cookie": session, **PAGE})
    assert answer.status == 302, answer.text
    return urllib.parse.urlsplit(answer.headers["Location"]), session


@pytest.mark.parametrize("name,host", [("demo.example.org", "demo.example.org"), ("*.example.org", "any.example.org")])
def test_a_private_space(daemon, domain, name, host):
    domain(name)
    daemon.spacectl("space", "visibility", "alice/own", "private", check=True)
    try:
        refused = daemon.request("GET", "/x?y=1", host=host, headers=PAGE)
        assert refused.status == 401
        link = refused.text.partition('href="')[2].partition('"')[0].replace("&amp;", "&")
        assert link.startswith(f"{daemon.url}/sign-in?") and f"host={host}" in link
        # The form may lead there, and no page else.
        form = daemon.request("GET", link.partition(daemon.url)[2], headers=PAGE)
        assert f"http://{host}:{daemon.port}" in form.headers["Content-Security-Policy"]
        assert f'name="host" value="{host}"' in form.text
        to, session = sign_in(daemon, link, daemon.token())
        assert (to.hostname, to.port, to.path) == (host, daemon.port, "/x") and "y=1" in to.query
        entered = daemon.request("GET", f"{to.path}?{to.query}", host=host, headers=PAGE)
        assert entered.status == 302 and entered.headers["Location"] == "/x?y=1"
        cookie = entered.headers["Set-Cookie"].split(";")[0]
        assert "Domain" not in entered.headers["Set-Cookie"]
        assert daemon.request("GET", "/", host=host, headers={"Cookie": cookie}).status == 200
        # A request of a page of another host, with the cookie, is nothing; a program's token opens it here too.
        assert daemon.request("GET", "/", host=host, headers={"Cookie": cookie, "Origin": "http://evil.example"}).status == 401
        assert daemon.request("GET", "/", host=host,
                              headers={"x-hf-authorization": f"Bearer {daemon.token()}"}).status == 200
        # Nobody's host gets a ticket: it leads to the Space's own name then.
        for evil in ("evil.example", "evil.org", f"{host}.evil.example", "*.example.org", "bob-pages.localhost"):
            query = urllib.parse.urlencode({"space": daemon.show("alice", "own")["_id"], "host": evil, "path": "/"})
            answer = daemon.request("GET", f"/sign-in?{query}", headers={"Cookie": session, **PAGE})
            assert urllib.parse.urlsplit(answer.headers["Location"]).hostname == daemon.host("alice", "own"), evil
            assert evil not in daemon.request("GET", f"/sign-in?{query}", headers=PAGE).headers["Content-Security-Policy"]
    finally:
        daemon.spacectl("space", "visibility", "alice/own", "public", check=True)
