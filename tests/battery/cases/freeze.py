"""Group I: tests/battery/freeze drives a spawner; here it is run with each kind of cgroup that the host has."""
import os
import subprocess

from rig.case import Broken, Inapplicable
from rig.config import CONFIGS, lacking
from rig.battery import ROOT
from rig.tenants import check

# What of a case is the proxy's or control's is tried with a whole daemon: tests/e2e/test_sleep.py; paging out in tests/vm.


def frozen(battery, case):
    """The same by v1's freezer and by the freezer of v2, where the host has both."""
    said = []
    for config in (CONFIGS["host"], CONFIGS["v1"]):
        if lacking(config, ROOT):
            continue
        done = subprocess.run([str(battery.tools / "freeze"), case.id], capture_output=True, text=True, timeout=600,
                              env={**os.environ, **config.env, "CMOCKA_MESSAGE_OUTPUT": "TAP"}, stdin=subprocess.DEVNULL)
        text = done.stdout + done.stderr
        if "# SKIP" in text:
            raise Inapplicable(text.split("# SKIP", 1)[1].splitlines()[0].strip())
        if f" - {case.id}" not in text:
            raise Broken(f"status {done.returncode}: {text.strip()[-300:]}")
        check(done.returncode == 0, f"{config.name}: {' '.join(text.split())[-400:]}")
        facts = [line[1:].strip() for line in done.stdout.splitlines() + done.stderr.splitlines() if line.startswith("#   ")]
        said.append(f"{config.name}: {', '.join(facts) or 'held'}")
    return "; ".join(said)
