"""Fixtures of the end-to-end tests, and a deadline for each test (`@pytest.mark.deadline(seconds)`)."""
import signal
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import BUILD, EXAMPLES, SLOW, Repo, Spaced

DEADLINE = 240


def pytest_configure(config):
    config.addinivalue_line("markers", "deadline(seconds): the test fails when it takes longer")
    # A shell's job in the background ignores them, and so would all that we start: the tests say Ctrl-C to some.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what runs beside other tests is ended by it


class DeadlineExceeded(Exception):
    pass


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """A test that hangs fails by itself, with the place where it hung."""
    marker = item.get_closest_marker("deadline")
    seconds = int((marker.args[0] if marker else DEADLINE) * SLOW)

    def expired(signum, frame):
        raise DeadlineExceeded(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows what the daemon said."""
    outcome = yield
    report = outcome.get_result()
    if report.when == "call":
        item.report_call = report
    if report.when == "call" and report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Spaced) and value.log_path.exists():
                report.sections.append(("end of the daemon's log", value.log_tail()))


@pytest.fixture(scope="session")
def spaced():
    """The daemon that most tests share."""
    daemon = Spaced()
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


@pytest.fixture
def start_spaced():
    """Makes daemons of a test's own, for tests that break them or need other limits: start_spaced(memory="64M")."""
    made = []

    def start(**options):
        made.append(Spaced(**options))
        return made[-1].start()

    yield start
    for daemon in made:
        daemon.close()


@pytest.fixture
def repo(tmp_path):
    """Makes work trees: repo("hello") from an example, repo(files={...}) from text."""
    count = iter(range(1000))

    def make(example=None, files=None):
        return Repo(tmp_path / f"repo{next(count)}", source=EXAMPLES / example if example else None, files=files)

    return make


@pytest.fixture(scope="session")
def venv(tmp_path_factory):
    """Makes a Python environment with packages from PyPI and returns its interpreter."""
    made = {}

    def make(*packages):
        if packages not in made:
            home = tmp_path_factory.mktemp("venv")
            subprocess.run(["/usr/bin/python3", "-m", "venv", str(home)], check=True)
            python = str(home / "bin" / "python")
            if shutil.which("uv"):
                install = ["uv", "pip", "install", "--quiet", "--python", python]
            else:
                install = [python, "-m", "pip", "install", "--quiet"]
            subprocess.run([*install, *packages], check=True)
            made[packages] = python
        return made[packages]

    return make


@pytest.fixture
def browser(tmp_path, request):
    """A tab of headless Chromium. A test that fails keeps a picture of it: build/screenshots/NAME.png."""
    import browser as module  # needs python3-websockets
    if not module.program():
        pytest.skip("no chromium on this machine")
    tab = module.Browser(tmp_path / "chromium")
    yield tab
    try:
        report = getattr(request.node, "report_call", None)
        if report is not None and report.failed:
            pictures = BUILD / "screenshots"
            pictures.mkdir(exist_ok=True)
            tab.screenshot(pictures / f"{request.node.name}.png")
    finally:
        tab.close()


def pytest_sessionstart(session):
    if not Path(BUILD / "spaced").exists():
        raise pytest.UsageError(f"{BUILD}/spaced is not there: run make first")
