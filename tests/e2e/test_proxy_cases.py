"""The table of http1_cases.py, byte for byte through the proxy; and the table of its rules, with the tests of each."""
import importlib
import re
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from http1_cases import CASES, NOT_OURS
from proxyraw import App, Proxy, get

# What the proxy holds to: [tests of the pure policy, rows "R1 ..." of test_http1_policy.c included], [over raw sockets],
# beside all rows of http1_cases.py with the number. Rules of state (pools, deadlines) are none of the policy's.
RULES = {
    1: ("Content-Length with Transfer-Encoding: 400 and close", ["R1"], ["raw.test_refused"]),
    2: ("Transfer-Encoding is one chunked, in HTTP/1.1", ["R2"], ["raw.test_refused"]),
    3: ("one Content-Length of 1 to 18 digits", ["R3"], ["raw.test_refused", "raw.test_content_length_body"]),
    4: ("no fold, bare CR or LF, NUL, space before a colon, name that is no token", ["R4"], ["raw.test_refused"]),
    5: ("one Host, which a target agrees with and a route knows", ["R5", "canonical"], ["raw.test_refused", "raw.test_absolute_form"]),
    6: ("a strict request line", ["R6"], ["raw.test_refused", "raw.test_options_star"]),
    7: ("names with an underscore are dropped", ["forward_table"], ["raw.test_forwarding_fields"]),
    8: ("the head is written anew, without hop-by-hop fields", ["R8", "forward_table", "reply_table"], ["raw.test_forwarding_fields"]),
    9: ("the proxy alone says who the client is", ["forward_table", "forward_ipv6_site_port"], ["raw.test_forwarding_fields"]),
    10: ("chunked bodies are read strictly and chunked anew, without extensions and trailers",
         ["chunk_table", "chunk_many", "chunk_limits"], ["raw.test_chunked_both_ways", "raw.test_bad_chunks"]),
    11: ("an upstream connection is used again only after a clean end", [],
         ["raw.test_extra_bytes_end_the_upstream_connection", "raw.test_response_until_close",
          "raw.test_keep_alive_reuses_one_upstream_connection"]),
    12: ("an early response ends both connections", [], ["raw.test_early_response_closes_both"]),
    13: ("Expect is answered here", ["R13"], ["raw.test_expect_continue_is_answered_here",
                                              "raw.test_expect_continue_not_for_an_unknown_host"]),
    14: ("interim responses are skipped; 101 only when asked for", ["R14"],
         ["raw.test_interim_responses_are_skipped", "raw.test_bad_response", "stream.test_websocket_bad_handshake",
          "stream.test_websocket_bad_answer"]),
    15: ("HEAD, 204 and 304 have no body", ["R15"], ["raw.test_no_body_by_status", "raw.test_head_has_no_body"]),
    16: ("limits on sizes, times and depth", ["limits_table", "chunk_limits"],
         ["raw.test_refused", "raw.test_pipelining_in_order", "life.test_slow_head", "life.test_body_stall"]),
    17: ("HTTP/2 is refused", ["R17"], ["raw.test_refused"]),
    18: ("a retry only without a response and a body, of an idempotent method", [],
         ["raw.test_stale_connection_is_retried_for_get_only", "raw.test_no_retry_after_a_byte_of_response"]),
    19: ("no pool is shared between apps or generations", ["deploy_drains_the_old", "sockets_of_the_spawner_are_pooled"],
         ["raw.test_connections_are_not_shared_between_hosts"]),
}


def unit_tests():
    text = "".join((Path(__file__).parent.parent / "unit" / f).read_text()
                   for f in ("test_http1_policy.c", "test_route.c", "test_proxy_channels.c"))
    return set(re.findall(r'\{"(R\d+) ', text)) | set(re.findall(r"(?:cmocka_unit_test|\bTEST)\((\w+)\)", text))


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_has_its_tests(rule):
    _, policy, raw = RULES[rule]
    known = unit_tests()
    for name in policy:
        assert name in known, name
    for name in raw:
        module, _, test = name.partition(".")
        assert hasattr(importlib.import_module(f"test_proxy_{module}"), test), name
    assert raw


def test_the_list_is_whole():
    """Http11Probe's cases: 76 of compliance, 87 of smuggling, 26 malformed, 5 normalised, 12 cookies, 9 capabilities."""
    want = {f"{suite}{i + 1}" for suite, n in zip("CSMNKV", (76, 87, 26, 5, 12, 9)) for i in range(n)}
    have = [k for row in CASES for k in row[3].split() if k != "llhttp"] + [k for keys in NOT_OURS for k in keys.split()]
    assert set(have) == want and {row[1] for row in CASES} <= set(RULES)
    assert len({row[0] for row in CASES}) == len(CASES)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    app = App()
    proxy = Proxy(tmp_path_factory.mktemp("cases"), {"a.test": f"127.0.0.1:{app.port}"})
    yield app, proxy
    proxy.close()
    app.close()


def wire(text):
    return text.replace("|", "\r\n").encode("latin-1")


def said(m):
    """A request as the app saw it: what no request may carry on is looked for in each."""
    method, target, version = m.line.split(" ")
    assert version == "HTTP/1.1" and m.get("host") is not None
    names = [k.lower() for k, _ in m.fields]
    assert names.count("content-length") + names.count("transfer-encoding") <= 1
    for name in names:
        assert "_" not in name and name not in ("te", "trailer", "expect", "keep-alive", "connection", "upgrade", "token"), name
    return " ".join(x for x in (method, target, m.body.decode("latin-1")) if x)


def answer(peer, request):
    while True:
        m = peer.message(head_only=request.startswith("HEAD "))
        if m.status != 100:
            return m


def refused(peer, status):
    m = peer.message()
    assert m.status == status, (m.line, m.body)
    assert m.get("connection") == "close" and parsedate_to_datetime(m.get("date"))
    assert status != 405 or m.get("allow")
    assert peer.closed()
    return m


def accepted(peer, app, at, outcomes):
    for i, want in enumerate(outcomes):
        if want == "close":
            assert peer.closed()
            return
        if isinstance(want, int):
            refused(peer, want)
            return
        m = answer(peer, want)
        assert m.status == 200 and parsedate_to_datetime(m.get("date")), (m.line, m.body)
        assert said(app.requests[at + i]) == want
    # Nothing is left over that the next request would be read with.
    peer.send(get("/follow"))
    assert peer.message().body == b"/follow"
    app.requests.pop()


@pytest.mark.parametrize("row", CASES, ids=lambda row: row[0].replace(" ", "-"))
def test_case(pair, row):
    app, proxy = pair
    outcome = row[5]
    at = len(app.requests)
    peer = proxy.connect()
    peer.send(wire(row[4]))
    if outcome is None:
        # Whatever the proxy makes of it, it has seen it all when it answers somebody else.
        assert proxy.ask(get("/other")).body == b"/other"
        app.requests.pop()
        peer.sock.shutdown(1)
        assert peer.closed()
    elif isinstance(outcome, int):
        refused(peer, outcome)
    elif isinstance(outcome, tuple):
        m = answer(peer, outcome[0])
        assert m.status == 200 or m.status == outcome[1]
        assert [said(r) for r in app.requests[at:]] == ([outcome[0]] if m.status == 200 else [])
        return
    else:
        accepted(peer, app, at, [outcome] if isinstance(outcome, str) else outcome)
    want = [x for x in (outcome if isinstance(outcome, list) else [outcome]) if isinstance(x, str) and x != "close"]
    assert [said(r) for r in app.requests[at:]] == want


def test_nothing_arrived_late(pair):
    """Behind all the rows: the app has not seen one request more than they say."""
    app, proxy = pair
    assert proxy.ask(get("/last")).body == b"/last"
    assert not [r.line for r in app.requests if "smuggled" in r.line or "evil" in r.line]
