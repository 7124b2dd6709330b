"""A real Gradio app behind the proxy, called by the real gradio_client from PyPI."""
import json
import subprocess

import pytest

from harness import git_env

CALLS = """
import json, os, sys, tempfile
import socket
_real = socket.getaddrinfo
def fake(host, *a, **k):
    if isinstance(host, (str, bytes)) and (host if isinstance(host, str) else host.decode()).endswith("localhost"):
        host = "127.0.0.1"
    return _real(host, *a, **k)
socket.getaddrinfo = fake
from gradio_client import Client, handle_file
more = {"httpx_kwargs": {"timeout": float(os.environ["PATIENCE"])}} if "PATIENCE" in os.environ else {}
client = Client(sys.argv[1], verbose=False, **dict(zip(["hf_token"], sys.argv[2:])), **more)
out = {"say": client.predict(42, "de", api_name="/say")}
job = client.submit(4, "en", api_name="/count")
out["last"] = job.result(timeout=60)
out["steps"] = len(job.outputs())
with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False) as f:
    f.write("quiet")
out["shout"] = open(client.predict(handle_file(f.name), api_name="/shout")).read()
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def app(spaced, tmp_path_factory):
    from harness import EXAMPLES, Repo
    work = Repo(tmp_path_factory.mktemp("gradio") / "repo", source=EXAMPLES / "gradio")
    out = spaced.push_ok(work, "alice", "words", timeout=580)
    assert spaced.stage("alice", "words") == "RUNNING", out
    return spaced


def run(python, home, *args, **env):
    return subprocess.run([python, "-c", CALLS, *args], capture_output=True, text=True, timeout=200,
                          env={**git_env(home), "GRADIO_ANALYTICS_ENABLED": "False", **env})


def call(python, where, home, *token, **env):
    done = run(python, home, where, *token, **env)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


PATIENT = {"PATIENCE": "60"}  # seconds; of its own it has httpx's 5, less than an app may take on a machine that has much to do
EXPECTED = {"say": "zweiundvierzig", "last": "one, two, three, four", "steps": 4, "shout": "QUIET"}


@pytest.mark.deadline(900)
def test_page(app):
    page = app.get("alice", "words")
    assert page.status == 200 and "Word clock" in page.text
    config = app.get("alice", "words", "/config").json()
    assert config["space_id"] == "alice/words"


@pytest.mark.deadline(400)
def test_client_by_url(app, venv, tmp_path):
    assert call(venv("gradio_client==1.13.3"), app.app_url("alice", "words"), tmp_path, **PATIENT) == EXPECTED


@pytest.mark.deadline(400)
def test_client_by_space_id(app, venv, tmp_path):
    """Client("alice/words") asks HF_ENDPOINT for the Space's host."""
    assert call(venv("gradio_client==1.13.3"), "alice/words", tmp_path, HF_ENDPOINT=app.url,
                HF_TOKEN=app.token(), **PATIENT) == EXPECTED


@pytest.mark.deadline(400)
def test_private(app, venv, tmp_path):
    """By name and by address with a token; its uploads, calls and event streams pass the gate. Without one not at all."""
    python = venv("gradio_client==1.13.3")
    app.spacectl("space", "visibility", "alice/words", "private", check=True)
    try:
        assert call(python, "alice/words", tmp_path, app.token(), HF_ENDPOINT=app.url, **PATIENT) == EXPECTED
        assert call(python, app.app_url("alice", "words"), tmp_path, app.token(), **PATIENT) == EXPECTED
        by_name = run(python, tmp_path, "alice/words", HF_ENDPOINT=app.url, **PATIENT)
        assert by_name.returncode and "RepositoryNotFound" in by_name.stderr, by_name.stderr[-2000:]
        by_address = run(python, tmp_path, app.app_url("alice", "words"), **PATIENT)
        assert by_address.returncode and "AuthenticationError" in by_address.stderr, by_address.stderr[-2000:]
    finally:
        app.spacectl("space", "visibility", "alice/words", "public", check=True)


@pytest.mark.deadline(500)
def test_asleep(app, venv, tmp_path):
    """Called while it is stopped, by address and by name: its first request waits."""
    python = venv("gradio_client==1.13.3")
    for where, env in (app.app_url("alice", "words"), {}), ("alice/words", {"HF_ENDPOINT": app.url, "HF_TOKEN": app.token()}):
        app.spacectl("space", "sleep", "alice/words", check=True)
        assert app.stage("alice", "words") == "SLEEPING"
        assert call(python, where, tmp_path, **PATIENT, **env) == EXPECTED


@pytest.mark.deadline(500)
def test_frozen(app, venv, tmp_path):
    """Called while it is frozen, with the client as it is."""
    app.options["freeze_after"] = "2s"
    app.restart()
    try:
        app.wait_stage("alice", "words", "SLEEPING")
        assert call(venv("gradio_client==1.13.3"), app.app_url("alice", "words"), tmp_path) == EXPECTED
    finally:
        del app.options["freeze_after"]
        app.restart()
