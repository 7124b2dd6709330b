"""The pages as a person sees them: the list of Spaces, a click that opens one, an app that streams, an error page."""
import pytest

from apps import header
from harness import EXAMPLES, Repo


@pytest.fixture(scope="module", autouse=True)
def hello(spaced, tmp_path_factory):
    spaced.push_ok(Repo(tmp_path_factory.mktemp("hello") / "repo", source=EXAMPLES / "hello"), "alice", "hello", "main", "-f")


def test_first_page_lists_and_opens_a_space(spaced, browser):
    browser.open(spaced.url + "/")
    browser.wait_text("Hello")
    browser.click("a[href*='alice-hello.localhost']")
    browser.wait_text("running in its own sandbox")
    assert browser.url.startswith(spaced.app_url("alice", "hello"))
    # Server-sent events reach the page: the counter of seconds runs.
    browser.wait_text("1 s")


def test_first_page_hides_nothing_behind_scripts(spaced):
    page = spaced.request("GET", "/")
    assert page.status == 200 and page.headers["Content-Type"].startswith("text/html")
    assert spaced.app_url("alice", "hello") in page.text or "/spaces/alice/hello" in page.text


def test_titles_are_text(spaced, repo, browser):
    """A title from somebody's README is shown, never run."""
    evil = "<script>document.title='pwned'</script><img src=x onerror=\\\"document.title='pwned'\\\">"
    spaced.push_ok(repo(files={"README.md": header(title=f'"{evil}"', sdk="static"), "index.html": "x"}), "alice", "evil")
    browser.open(spaced.url + "/")
    browser.wait_text("<script>")
    assert browser.evaluate("document.title") != "pwned"


def test_error_page(spaced, repo, browser):
    spaced.push(repo(files={"README.md": header(sdk="docker"), "Dockerfile": "FROM x"}), "alice", "sad")
    browser.open(spaced.app_url("alice", "sad"))
    browser.wait_text("docker")
