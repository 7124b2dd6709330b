"""A real Streamlit app: health, its WebSocket, and the page as a browser renders it."""
import asyncio

import pytest
import websockets

from harness import EXAMPLES, Repo


@pytest.fixture(scope="module")
def app(spaced, tmp_path_factory):
    work = Repo(tmp_path_factory.mktemp("streamlit") / "repo", source=EXAMPLES / "streamlit")
    spaced.push_ok(work, "alice", "waves", timeout=580)
    return spaced


@pytest.mark.deadline(900)
def test_health(app):
    assert app.stage("alice", "waves") == "RUNNING"
    assert app.get("alice", "waves", "/_stcore/health").text == "ok"


def test_websocket(app):
    async def first_message():
        async with websockets.connect(f"ws://{app.host('alice', 'waves')}:{app.port}/_stcore/stream",
                                      subprotocols=["streamlit"], open_timeout=60,
                                      origin=app.app_url("alice", "waves")) as socket:
            # An empty BackMsg.rerun_script (field 11): what the page sends when it opens.
            await socket.send(b"\x5a\x00")
            return await asyncio.wait_for(socket.recv(), 60)

    assert isinstance(asyncio.run(first_message()), bytes)


@pytest.mark.deadline(200)
def test_rendered_by_a_browser(app, browser):
    browser.open(app.app_url("alice", "waves"))
    browser.wait_text("First frequency", 90)
    browser.wait_text("Counted 0 times")
    browser.click("[data-testid=stButton] button")
    browser.wait_text("Counted 1 times")
