"""Private and protected Spaces: every way in, every refusal, and what the app gets to see of it. Against a daemon of its own, since
revoking ends what other tests hold."""
import base64
import json
import re
import socket
import stat
import subprocess
import urllib.parse

import pytest

from harness import Repo, git_env, wait_for
from proxyraw import PATIENCE, Peer

# Answers with the fields that it got; /events streams for ever, /ws is a WebSocket that echoes one frame, /cookie sets cookies.
APP = r'''
import base64, hashlib, json, os, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path == "/events":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            while True:
                self.wfile.write(b"data: tick\n\n")
                time.sleep(0.05)
        if self.path.startswith("/ws"):
            key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
            self.end_headers()
            self.wfile.write(b"hello from the app")
            self.close_connection = True
            self.rfile.read()
            return
        body = json.dumps({"path": self.path, "fields": [[k.lower(), v] for k, v in self.headers.items()]}).encode()
        self.send_response(200)
        if self.path == "/cookie":
            for c in ("own=1", "spaced-access=stolen; Path=/", "__Host-Spaced-Access=stolen", "spaced-session=stolen; Domain=localhost"):
                self.send_header("Set-Cookie", c)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *a): pass

ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
'''
FILES = {"Procfile": "web: python3 app.py\n", "app.py": APP}
PAGE = {"Accept": "text/html"}


def api(daemon, method, path, user=None, body=None):
    headers = {"Authorization": f"Bearer {daemon.token(user)}"} if user else {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    return daemon.request(method, path, headers=headers, body=json.dumps(body) if body is not None else None)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    from harness import Spaced
    made = Spaced()
    try:
        made.start()
        repo = Repo(tmp_path_factory.mktemp("access") / "repo", files=FILES)
        for name in ("secret", "other", "open"):
            made.push_ok(repo, "alice", name)
            assert made.get_ok("alice", name)
        made.token("bob")
        for name in ("secret", "other"):
            made.spacectl("space", "visibility", f"alice/{name}", "private", check=True)
        yield made
    finally:
        made.close()


def jwt(daemon, name="secret", user="alice"):
    return api(daemon, "GET", f"/api/spaces/alice/{name}/jwt", user).json()["token"]


def cookie(daemon, name="secret", user="alice"):
    """A Cookie field as a browser holds it after it came with a ticket."""
    answer = daemon.get("alice", name, f"/?__sign={jwt(daemon, name, user)}", headers=PAGE)
    assert answer.status == 302, answer.text
    return answer.headers["Set-Cookie"].split(";")[0]


def seen(answer):
    assert answer.status == 200, (answer.status, answer.text)
    got = answer.json()
    return got["path"], got["fields"]


def names(answer):
    return [k for k, _ in seen(answer)[1]]


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


# --- refusals


def test_a_stranger_is_refused(daemon):
    program = daemon.get("alice", "secret", "/x")
    assert program.status == 401 and program.headers["WWW-Authenticate"].startswith("Bearer")
    page = daemon.get("alice", "secret", "/x?a=1&b=2", headers=PAGE)
    assert page.status == 401 and page.headers["Content-Type"].startswith("text/html")
    link = re.search('href="([^"]+)"', page.text).group(1).replace("&amp;", "&")
    assert link.startswith(f"{daemon.url}/sign-in?space=")
    assert urllib.parse.parse_qs(urllib.parse.urlsplit(link).query)["path"] == ["/x?a=1&b=2"]
    assert daemon.get("alice", "secret", method="POST", body=b"x" * 1000).status == 401


def test_wrong_and_foreign_tokens(daemon):
    wrong = daemon.get("alice", "secret", headers=bearer("hf_" + "x" * 34))
    assert wrong.status == 401 and wrong.headers["X-Error-Message"] == "Invalid credentials in Authorization header"
    for token in ("", "x" * 128, "\u00e9"):
        answer = daemon.get("alice", "secret", headers={"Authorization": f"Bearer {token}".encode("utf-8")})
        assert answer.status == 401, token
    # A user who may not see it: as if it were not there.
    foreign = daemon.get("alice", "secret", headers=bearer(daemon.token("bob")))
    missing = daemon.get("alice", "none", headers=bearer(daemon.token("bob")))
    assert foreign.status == missing.status == 404

    def words(answer):
        return answer.text.replace(answer.headers["X-Request-Id"], "")
    assert words(foreign) == words(missing)


def test_other_credentials_are_not_ours(daemon):
    pair = base64.b64encode(f"alice:{daemon.token()}".encode()).decode()
    assert daemon.get("alice", "secret", headers={"Authorization": f"Basic {pair}"}).status == 401
    assert daemon.get("alice", "secret", f"/?token={daemon.token()}").status == 401
    assert daemon.get("alice", "secret", headers={"Cookie": f"spaced-access={daemon.token()}"}).status == 401


def flips(text):
    """The ticket with one character changed, at each place."""
    for i, c in enumerate(text):
        yield text[:i] + ("A" if c != "A" else "B") + text[i + 1:]


def test_tampered_tickets(daemon):
    ticket, crumb = jwt(daemon), cookie(daemon)
    key, value = crumb.split("=", 1)
    for i, (bad_ticket, bad_value) in enumerate(zip(flips(ticket), flips(value))):
        assert daemon.get("alice", "secret", f"/?__sign={bad_ticket}").status == 401, i
        assert daemon.get("alice", "secret", headers={"Cookie": f"{key}={bad_value}"}).status == 401, i
    for bad in (ticket[:-1], ticket + "A", ticket + "=", "", "%41" + ticket[1:], value):
        assert daemon.get("alice", "secret", f"/?__sign={bad}").status == 401, bad
    # A ticket for an address is no cookie.
    assert daemon.get("alice", "secret", headers={"Cookie": f"{key}={ticket}"}).status == 401


def test_tickets_of_another_space(daemon):
    assert daemon.get("alice", "secret", f"/?__sign={jwt(daemon, 'other')}").status == 401
    assert daemon.get("alice", "secret", headers={"Cookie": cookie(daemon, "other")}).status == 401


def test_who_gets_a_ticket(daemon):
    assert api(daemon, "GET", "/api/spaces/alice/secret/jwt").status == 401
    assert api(daemon, "GET", "/api/spaces/alice/secret/jwt", "bob").status == 404
    assert api(daemon, "GET", "/api/spaces/alice/open/jwt").status == 401
    assert api(daemon, "GET", "/api/spaces/alice/open/jwt", "bob").status == 200


# --- ways in


def test_bearer_opens_and_is_not_passed_on(daemon):
    answer = daemon.get("alice", "secret", "/a?b=c", headers=bearer(daemon.token()))
    assert seen(answer)[0] == "/a?b=c" and "authorization" not in names(answer)
    assert daemon.get("alice", "secret", method="POST", body=b"x", headers=bearer(daemon.token())).status == 200


def test_hf_authorization_opens_and_the_apps_own_is_passed(daemon):
    answer = daemon.get("alice", "secret", headers={"X-HF-Authorization": f"Bearer {daemon.token()}",
                                                    "Authorization": "Bearer the app's own"})
    got = dict(seen(answer)[1])
    assert got["authorization"] == "Bearer the app's own" and "x-hf-authorization" not in got


def test_a_public_app_does_not_see_what_opens_spaces(daemon):
    answer = daemon.get("alice", "open", f"/p?__sign={jwt(daemon)}&q=1",
                        headers={"X-HF-Authorization": f"Bearer {daemon.token()}", "Authorization": "Bearer own",
                                 "Cookie": "a=1; spaced-access=x; b=2"})
    path, fields = seen(answer)
    got = dict(fields)
    assert path == "/p?q=1" and got["cookie"] == "a=1; b=2" and got["authorization"] == "Bearer own"
    assert "x-hf-authorization" not in got


def test_sign_becomes_a_cookie(daemon):
    answer = daemon.get("alice", "secret", f"/deep?x=1&__sign={jwt(daemon)}&y=2", headers=PAGE)
    assert answer.status == 302 and answer.headers["Location"] == "/deep?x=1&y=2"
    flags = [f.strip() for f in answer.headers["Set-Cookie"].split(";")]
    assert flags[0].startswith("spaced-access=") and {"HttpOnly", "Path=/", "SameSite=Lax", "Max-Age=86400"} <= set(flags)
    assert not any(f.startswith("Domain") for f in flags) and "no-store" in answer.headers["Cache-Control"]
    own = daemon.get("alice", "secret", "/deep?x=1", headers={"Cookie": f"a=1; {flags[0]}; b=2"})
    assert dict(seen(own)[1])["cookie"] == "a=1; b=2"
    alone = daemon.get("alice", "secret", headers={"Cookie": flags[0], "Authorization": "Bearer own"})
    assert "cookie" not in names(alone) and dict(seen(alone)[1])["authorization"] == "Bearer own"


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example/"])
def test_the_redirect_stays_here(daemon, path):
    answer = daemon.get("alice", "secret", f"{path}?__sign={jwt(daemon)}", headers=PAGE)
    assert answer.status == 302 and answer.headers["Location"] == "/." + path


def test_sign_of_a_program_is_transparent(daemon):
    assert seen(daemon.get("alice", "secret", f"/api?__sign={jwt(daemon)}"))[0] == "/api"
    assert seen(daemon.get("alice", "secret", f"/api?__sign={jwt(daemon)}&z=1", headers={
        **PAGE, "Sec-Fetch-Mode": "cors"}))[0] == "/api?z=1"


def test_the_app_cannot_set_our_cookies(daemon):
    for name, headers in (("open", {}), ("secret", bearer(daemon.token()))):
        answer = daemon.get("alice", name, "/cookie", headers=headers)
        assert answer.headers.get_all("Set-Cookie") == ["own=1"], name


# --- what a browser sends by itself


@pytest.mark.parametrize("headers, status", [
    ({}, 200),
    ({"Sec-Fetch-Site": "same-origin", "Origin": "SAME"}, 200),
    ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 401),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 401),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", **PAGE}, 200),
    ({"Origin": "http://alice-other.localhost"}, 401),
    ({"Origin": "http://alice-other.localhost", **PAGE}, 401),
    ({"Origin": "null"}, 401),
])
def test_cookies_count_for_own_pages_only(daemon, headers, status):
    headers = {k: daemon.app_url("alice", "secret") if v == "SAME" else v for k, v in headers.items()}
    assert daemon.get("alice", "secret", headers={"Cookie": cookie(daemon), **headers}).status == status
    if headers.get("Sec-Fetch-Mode") == "navigate":
        assert daemon.get("alice", "secret", method="POST", headers={"Cookie": cookie(daemon), **headers}).status == 401


# --- the same twice


def raw(daemon, *lines, path="/", host=None):
    peer = Peer(socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE))
    head = [f"GET {path} HTTP/1.1", f"Host: {host or daemon.host('alice', 'secret')}:{daemon.port}", *lines, "", ""]
    peer.send("\r\n".join(head).encode())
    return peer


def test_the_same_twice(daemon):
    good, token = cookie(daemon), daemon.token()
    for status, path, lines in [
            (400, "/", [f"Authorization: Bearer {token}", "Authorization: Bearer x"]),
            (400, "/", [f"Authorization: Bearer {token}", f"authorization: Bearer {token}"]),
            (400, "/", [f"x-hf-authorization: Bearer {token}", "x-hf-authorization: x"]),
            (400, f"/?__sign={jwt(daemon)}&__sign={jwt(daemon)}", []),
            # A neighbour may have put a cookie of our name beside the right one.
            (200, "/", [f"Cookie: spaced-access=junk; {good}"]),
            (200, "/", ["Cookie: spaced-access=junk", f"Cookie: {good}; a=1"]),
            (401, "/", ["Cookie: " + "; ".join(["spaced-access=junk"] * 4 + [good])]),
            (401, "/", [f"Cookie: x{good}", f"Cookie: {good.replace('spaced', 'spacEd')}x"]),
            (400, "/", [f"Cookie: {good}", "Connection: cookie"]),
            (401, "/", [f"x-hf-authorization: Bearer {token}", "Connection: x-hf-authorization"]),
            (401, "/", [f"x_hf_authorization: Bearer {token}"]),
            (400, "/", [f"Authorization : Bearer {token}"])]:
        peer = raw(daemon, *lines, path=path)
        message = peer.message()
        assert message.status == status, (status, lines, message.line, message.body)
        assert status != 200 or b"spaced-access" not in message.body
        peer.close()


# --- WebSockets and event streams


def handshake(daemon, name, *lines):
    return raw(daemon, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
               f"Sec-WebSocket-Key: {base64.b64encode(b'x' * 16).decode()}", *lines, path="/ws",
               host=daemon.host("alice", name))


def test_websockets_pass_the_same_gate(daemon):
    own = f"Origin: {daemon.app_url('alice', 'secret')}"
    good = f"Cookie: {cookie(daemon)}"
    for status, lines in [(401, []), (401, [good, f"Origin: {daemon.app_url('alice', 'other')}"]), (101, [good, own]),
                          (101, [f"Authorization: Bearer {daemon.token()}"]),
                          (101, [f"x-hf-authorization: Bearer {daemon.token()}"])]:
        peer = handshake(daemon, "secret", *lines)
        assert peer.message(head_only=True).status == status, lines
        assert status != 101 or peer.exactly(5) == b"hello"
        peer.close()


# --- changes take effect at once


def visibility(daemon, name, word):
    answer = api(daemon, "PUT", f"/api/spaces/alice/{name}/settings", "alice", {"visibility": word})
    assert answer.status == 200, answer.text
    return answer.json()


def test_private_at_once(daemon):
    """On open connections too: the next request is refused, what streams is cut. A ticket from before opens nothing."""
    before = jwt(daemon, "open", "bob")
    host = daemon.host("alice", "open")
    kept, streaming = raw(daemon, host=host), raw(daemon, path="/events", host=host)
    assert kept.message().status == 200 and streaming.message(head_only=True).status == 200
    streaming.until(b"tick")
    tunnel = handshake(daemon, "open")
    assert tunnel.message(head_only=True).status == 101
    tunnel.until(b"app")
    try:
        assert visibility(daemon, "open", "private")["private"] is True
        kept.send(f"GET / HTTP/1.1\r\nHost: {host}:{daemon.port}\r\n\r\n".encode())
        assert kept.message().status == 401
        streaming.rest()
        assert tunnel.closed()
        assert daemon.get("alice", "open", f"/?__sign={before}").status == 401
    finally:
        visibility(daemon, "open", "public")
    assert daemon.get("alice", "open").status == 200
    for peer in (kept, streaming, tunnel):
        peer.close()


def test_protected(daemon):
    """The app is for all, the repository for its owner."""
    try:
        assert visibility(daemon, "open", "protected") == {"visibility": "protected", "private": True, "gated": False}
        assert daemon.get("alice", "open").status == 200
        assert api(daemon, "GET", "/api/spaces/alice/open").status == 401
        assert api(daemon, "GET", "/api/spaces/alice/open", "bob").status == 404
        assert api(daemon, "GET", "/api/spaces/alice/open", "alice").json()["visibility"] == "protected"
        refs = "/spaces/alice/open/info/refs?service=git-upload-pack"
        assert daemon.request("GET", refs).status == 401
        assert "alice/open" not in daemon.request("GET", "/", headers=PAGE).text
    finally:
        visibility(daemon, "open", "public")


def test_settings(daemon):
    path = "/api/spaces/alice/open/settings"
    assert api(daemon, "PUT", path, "bob", {"private": True}).status == 403
    assert api(daemon, "PUT", path, None, {"private": True}).status == 401
    for bad in ({"visibility": "secret"}, {"visibility": 1}, {"gated": "auto"}):
        assert api(daemon, "PUT", path, "alice", bad).status == 400, bad
    assert api(daemon, "PUT", path, "alice", {"private": True}).json()["visibility"] == "private"
    assert api(daemon, "PUT", path, "alice", {"private": False}).json()["visibility"] == "public"
    assert daemon.spacectl("space", "visibility", "alice/open", "nonsense")[0] == 1
    assert "public" in daemon.spacectl("space", "visibility", "alice/open", "public", check=True)[1]


def test_a_removed_token_opens_nothing(daemon):
    """Neither itself, though the proxies remember answers, nor the cookie and session that it gave."""
    daemon.spacectl("user", "add", "carol", "--admin")
    token = daemon.spacectl("token", "add", "carol", check=True)[1].strip()
    session = sign_in(daemon, token).headers["Set-Cookie"].split(";")[0]
    to_app = daemon.request("GET", f"/sign-in?space={space_id(daemon)}", headers={"Cookie": session, **PAGE})
    crumb = daemon.get("alice", "secret", to_app.headers["Location"].partition(f":{daemon.port}")[2],
                       headers=PAGE).headers["Set-Cookie"].split(";")[0]
    assert daemon.get("alice", "secret", headers=bearer(token)).status == 200
    assert daemon.get("alice", "secret", headers={"Cookie": crumb}).status == 200
    listed = json.loads(daemon.spacectl("--json", "token", "list", "carol", check=True)[1])
    daemon.spacectl("token", "remove", listed[0]["id"], check=True)
    assert daemon.get("alice", "secret", headers=bearer(token)).status == 401
    assert daemon.get("alice", "secret", headers={"Cookie": crumb}).status == 401
    page = daemon.request("GET", f"/sign-in?space={space_id(daemon)}", headers={"Cookie": session, **PAGE})
    assert page.status == 200 and "Your token" in page.text


def test_a_removed_token_ends_what_is_open(daemon):
    """By the token itself, asked for or remembered, and by the cookie that it gave. What others have open stays."""
    daemon.spacectl("user", "add", "dora", "--admin")
    token = daemon.spacectl("token", "add", "dora", check=True)[1].strip()
    session = sign_in(daemon, token).headers["Set-Cookie"].split(";")[0]
    to_app = daemon.request("GET", f"/sign-in?space={space_id(daemon)}", headers={"Cookie": session, **PAGE})
    crumb = daemon.get("alice", "secret", to_app.headers["Location"].partition(f":{daemon.port}")[2],
                       headers=PAGE).headers["Set-Cookie"].split(";")[0]
    field = f"Authorization: Bearer {token}"
    cut = []
    for path, lines in [("/ws", [field]), ("/ws", [field]), ("/events", [field]),
                        ("/ws", [f"Cookie: {crumb}", f"Origin: {daemon.app_url('alice', 'secret')}"])]:
        cut.append(handshake(daemon, "secret", *lines) if path == "/ws" else raw(daemon, *lines, path=path))
        assert cut[-1].message(head_only=True).status == (101 if path == "/ws" else 200)
    stays = handshake(daemon, "secret", f"Authorization: Bearer {daemon.token()}")
    assert stays.message(head_only=True).status == 101
    listed = json.loads(daemon.spacectl("--json", "token", "list", "dora", check=True)[1])
    daemon.spacectl("token", "remove", listed[0]["id"], check=True)
    for peer in cut:
        peer.rest()  # until its end
        peer.close()
    assert stays.until(b"app")
    stays.sock.settimeout(0.5)
    with pytest.raises(TimeoutError):
        stays.fill()
    stays.close()


def test_tickets_outlive_the_daemons_roles(daemon):
    good = cookie(daemon)
    daemon.kill_role("proxy")
    wait_for("the new proxy", daemon.healthy)
    assert daemon.get("alice", "secret").status == 401
    assert daemon.get("alice", "secret", headers={"Cookie": good}).status == 200
    daemon.kill_role("control")
    wait_for("the new control", daemon.healthy)
    assert daemon.get("alice", "secret", headers={"Cookie": good}).status == 200
    assert daemon.get_ok("alice", "secret", headers=bearer(daemon.token())).status == 200


def test_keys_and_logs(daemon):
    key = daemon.state / "control" / "access.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    ticket, good = jwt(daemon), cookie(daemon)
    daemon.get("alice", "secret", f"/?__sign={ticket}", headers={"Cookie": good, **bearer(daemon.token())})
    for log in [daemon.log_path, *(daemon.state / "logs").glob("*")]:
        text = log.read_text(errors="replace")
        for secret in (ticket, good.partition("=")[2], daemon.token()):
            assert secret not in text, log


# --- signing in


def space_id(daemon):
    return daemon.show("alice", "secret")["_id"]


def sign_in(daemon, token, path="/", **headers):
    form = urllib.parse.urlencode({"space": space_id(daemon), "path": path, "token": token})
    return daemon.request("POST", "/sign-in", body=form, headers={
        "Content-Type": "application/x-www-form-urlencoded", **PAGE, **headers})


def test_sign_in_page(daemon):
    page = daemon.request("GET", f"/sign-in?space={space_id(daemon)}&path=/%22%3E%3Cb%3E", headers=PAGE)
    assert page.status == 200 and "<b>" not in page.text and "Your token" in page.text
    wrong = sign_in(daemon, "hf_" + "w" * 34)
    assert wrong.status == 401 and "not valid" in wrong.text and not wrong.headers.get("Set-Cookie")
    assert sign_in(daemon, daemon.token(), Origin="http://alice-other.localhost").status == 403
    answer = sign_in(daemon, daemon.token(), "/deep?x=1", Origin=daemon.url)
    assert answer.status == 303
    session = answer.headers["Set-Cookie"]
    assert session.startswith("spaced-session=") and "HttpOnly" in session and "SameSite=Lax" in session
    back = daemon.request("GET", answer.headers["Location"], headers={"Cookie": session.split(";")[0], **PAGE})
    assert back.status == 302
    assert back.headers["Location"].startswith(daemon.app_url("alice", "secret") + "/deep?x=1&__sign=")
    # The session reads pages and nothing else.
    crumb = {"Cookie": session.split(";")[0]}
    assert "alice/secret" in daemon.request("GET", "/", headers={**crumb, **PAGE}).text
    assert daemon.request("GET", "/api/spaces/alice/secret", headers=crumb).status == 401
    assert daemon.request("POST", "/api/spaces/alice/secret/restart", headers=crumb).status == 401


def test_sign_in_leads_nowhere_else(daemon):
    session = sign_in(daemon, daemon.token()).headers["Set-Cookie"].split(";")[0]
    bobs = sign_in(daemon, daemon.token("bob")).headers["Set-Cookie"].split(";")[0]
    for path in ("@evil.example/", ".evil.example", "/a%0d%0aSet-Cookie:%20x=1", "/%20", "", "/" + "x" * 3000):
        answer = daemon.request("GET", f"/sign-in?space={space_id(daemon)}&path={path}", headers={"Cookie": session, **PAGE})
        assert answer.status == 302
        assert answer.headers["Location"].startswith(daemon.app_url("alice", "secret") + "/?__sign="), path
    assert daemon.request("GET", f"/sign-in?space={space_id(daemon)}", headers={"Cookie": bobs, **PAGE}).status == 404
    assert daemon.request("GET", f"/sign-in?space={'0' * 24}", headers={"Cookie": bobs, **PAGE}).status == 404


def test_a_person_signs_in(daemon, browser):
    browser.open(daemon.app_url("alice", "secret") + "/deep?x=1")
    browser.wait_text("This Space is private")
    browser.click("a[href*='/sign-in']")
    browser.wait_text("Your token")
    browser.evaluate(f"document.querySelector('#token').value = {json.dumps(daemon.token())}")
    browser.click("button[type=submit]")
    browser.wait_text('"/deep?x=1"')
    assert browser.url == daemon.app_url("alice", "secret") + "/deep?x=1"
    assert "spaced-access" not in browser.text and browser.evaluate("document.cookie") == ""
    # Its own scripts go on with the cookie; a page of another Space does not.
    fetch = "fetch(%s, {credentials: 'include', mode: %s}).then(r => r.status, e => String(e))"
    secret = json.dumps(daemon.app_url("alice", "secret") + "/")
    assert browser.evaluate(fetch % (secret, "'cors'")) == 200
    browser.open(daemon.app_url("alice", "open") + "/")
    browser.wait_text('"path"')
    ws = json.dumps(daemon.app_url("alice", "secret").replace("http", "ws") + "/ws")
    opened = "new Promise(done => { const w = new WebSocket(%s); w.onopen = () => done('open'); w.onerror = () => done('refused'); })"
    assert browser.evaluate(opened % ws) == "refused"


# --- real clients

HUB = """
import json, sys
from huggingface_hub import HfApi
from huggingface_hub.utils import RepositoryNotFoundError
space, token = sys.argv[1:]
hub = HfApi()
try:
    hub.space_info(space, token=False)
    raise SystemExit("it was found without a token")
except RepositoryNotFoundError as error:
    out = {"anonymous": error.response.status_code}
info = hub.space_info(space, token=token)
out["private"] = info.private
hub.update_repo_settings(space, private=False, repo_type="space", token=token)
out["after"] = hub.space_info(space, token=False).private
hub.update_repo_settings(space, private=True, repo_type="space", token=token)
print(json.dumps(out))
"""


@pytest.mark.deadline(400)
def test_huggingface_hub(daemon, venv, tmp_path):
    done = subprocess.run([venv("huggingface_hub==0.36.0"), "-c", HUB, "alice/secret", daemon.token()], text=True,
                          capture_output=True, timeout=120, env={**git_env(tmp_path), "HF_ENDPOINT": daemon.url})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"anonymous": 401, "private": True, "after": False}
    assert daemon.get("alice", "secret").status == 401
