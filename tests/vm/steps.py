"""Steps of a test in the VM, one after the other, as TAP-like lines."""
import sys
import time
import traceback

counts = {"ok": 0, "not ok": 0}


def step(name, act):
    began = time.monotonic()
    try:
        act()
        word, why = "ok", ""
    except BaseException:
        word, why = "not ok", traceback.format_exc(limit=-3)
    counts[word] += 1
    print(f"{word} {name} ({time.monotonic() - began:.1f} s)", flush=True)
    for line in why.splitlines()[-40:]:
        print(f"#   {line}", flush=True)


def sum_up(log):
    """Prints the sum and ends; `log()` is shown if something has failed."""
    if counts["not ok"]:
        print(f"# end of the daemon's log:\n{log()}")
    print(f"{counts['ok']} passed, {counts['not ok']} failed, 0 skipped")
    sys.exit(1 if counts["not ok"] else 0)
