"""A real Streamlit app: health, its WebSocket, and the page as a browser renders it."""
import asyncio
import re
import shutil

import pytest
import websockets

from harness import EXAMPLES, Repo, wait_for


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
                                      subprotocols=["streamlit"], open_timeout=20,
                                      origin=app.app_url("alice", "waves")) as socket:
            # An empty BackMsg.rerun_script (field 11): what the page sends when it opens.
            await socket.send(b"\x5a\x00")
            return await asyncio.wait_for(socket.recv(), 30)

    assert isinstance(asyncio.run(first_message()), bytes)


@pytest.mark.deadline(200)
def test_rendered_by_a_browser(app, chromium, tmp_path):
    url = app.app_url("alice", "waves")

    def rendered():
        page = chromium("--virtual-time-budget=15000", "--timeout=20000", "--dump-dom", url)
        return page if "First frequency" in page else None

    try:
        page = wait_for("the sliders of the app", rendered, 120, 1)
    except AssertionError:
        chromium("--virtual-time-budget=15000", f"--screenshot={tmp_path}/streamlit.png", url)
        kept = "/var/tmp/spaced-streamlit-failed.png"
        if (tmp_path / "streamlit.png").exists():
            shutil.copy(tmp_path / "streamlit.png", kept)
        raise
    assert re.search(r"Waves", page)
