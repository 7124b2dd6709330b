"""The command line: chooses cases and configurations, runs them in order, prints the table and the sums."""
import argparse
import ctypes
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from .battery import ROOT, Battery, hush
from .case import BROKEN, CONTAINED, ESCAPED, NOT_APPLICABLE, PROBE, SETUP, Broken, Escape, Inapplicable, Result
from .config import CONFIGS, lacking
from .host import LIBC, adopt_orphans

GROUPS = {"A": "file system, mounts, set-up", "B": "procfs, sysfs, cgroupfs", "C": "namespaces, capabilities",
          "D": "kernel surface", "E": "processes, IPC, terminals", "F": "network", "G": "resource abuse",
          "H": "daemon and CLI", "I": "life and freeze"}
MS_BIND, MS_PRIVATE, MS_REC = 4096, 1 << 18, 16384
WIDTH = 46


def parse(argv, about):
    parser = argparse.ArgumentParser(prog="tests/battery/run", description=about,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wanted", nargs="*", metavar="CASE|GROUP")
    parser.add_argument("--list", action="store_true", help="the table of cases, not run")
    parser.add_argument("--config", choices=CONFIGS, default="host")
    parser.add_argument("--matrix", action="store_true", help="every configuration")
    parser.add_argument("--brief", action="store_true", help="only the cases that a configuration can change (rig/config.py)")
    parser.add_argument("-v", "--verbose", action="store_true", help="what the acts were refused with")
    args = parser.parse_args(argv)
    from cases.table import CASES
    known = {c.id for c in CASES} | {c.group for c in CASES}
    for word in args.wanted:
        if word not in known:
            parser.error(f"no case or group `{word}`")
    args.cases = [c for c in CASES if not args.wanted or c.id in args.wanted or c.group in args.wanted]
    return args


def bind(source, target):
    if LIBC.mount(source.encode(), target.encode(), None, MS_BIND | MS_REC, None) < 0:
        sys.exit(f"battery: no /tmp of our own: {os.strerror(ctypes.get_errno())}")


def own_mounts(work):
    """Mounts that nobody else sees, and a /tmp of our own, so that what is left behind there is ours."""
    if LIBC.unshare(0x20000) < 0 or LIBC.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) < 0:
        sys.exit(f"battery: no mount namespace: {os.strerror(ctypes.get_errno())}")
    tmp = f"{work}/tmp"
    os.mkdir(tmp, 0o1777)
    os.chmod(tmp, 0o1777)
    if str(ROOT).startswith("/tmp/"):  # a checkout there stays where it is
        os.makedirs(f"{work}{ROOT}")
        bind(str(ROOT), f"{work}{ROOT}")
    bind(tmp, "/tmp")
    os.chdir(ROOT)


def run_case(battery, case):
    battery.daemon_used = False
    before = battery.host.kept()
    try:
        result = Result(CONTAINED, case.run(battery, case))
    except Escape as e:
        result = Result(ESCAPED, str(e))
    except Inapplicable as e:
        result = Result(NOT_APPLICABLE, str(e))
    except (Broken, AssertionError, OSError, subprocess.SubprocessError, LookupError, ValueError, TypeError) as e:
        where = e.__traceback__
        while where.tb_next:
            where = where.tb_next
        place = f"{pathlib.Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}"
        result = Result(BROKEN, str(e) if isinstance(e, Broken) else f"{type(e).__name__} at {place}: {e}")
    # Processes of a daemon come and go as it works: what it leaves behind is looked at when it has ended.
    quiet = case.how in (PROBE, SETUP) and not battery.daemon_used
    left = battery.host.left(before) if quiet else []
    wrong = battery.host.harmed() + battery.victim.harmed() + left
    return Result(ESCAPED, "; ".join(wrong + [f"({result.outcome}: {result.text})"])) if wrong else result


def run_config(config, cases, args, programs):
    """[(case, Result)] of one configuration, printed as it goes."""
    work = tempfile.mkdtemp(prefix="battery-", dir="/var/tmp")
    os.chmod(work, 0o755)
    results = []
    try:
        empty = os.listdir("/tmp")
        try:
            battery = Battery(config, work, ROOT / "build", programs)
        except Broken as e:
            print(f"  no sandbox comes up: {e}")
            return [(None, Result(BROKEN, f"configuration {config.name}: {e}"))]
        before = battery.host.kept()
        try:
            group = None
            for case in cases:
                if case.group != group:
                    group = case.group
                    print(f"\n{group}  {GROUPS[group]}" + (f"  [{config.name}]" if args.matrix else ""))
                start = time.monotonic()
                result = run_case(battery, case)
                results.append((case, result))
                mark = {CONTAINED: "contained", ESCAPED: "ESCAPED  ", BROKEN: "BROKEN   "}.get(result.outcome, "n/a      ")
                text = result.text
                if not args.verbose and result.outcome == CONTAINED and len(text) > 90:
                    text = text[:87] + "..."
                print(f"  {case.id:4} {case.title:{WIDTH}} {mark} {time.monotonic() - start:5.1f} s  {text}", flush=True)
        finally:
            battery.close()
        # The victim and a daemon have ended: nothing may be there that was not before them.
        left = battery.host.left({kind: names if kind != "files in /tmp" else set(empty)
                                  for kind, names in before.items()})
        if left:
            results.append((None, Result(ESCAPED, "; ".join(left))))
            print(f"  {'':4} {'the host at the end':{WIDTH}} ESCAPED   {'; '.join(left)}")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return results


def count(results):
    outcomes = [r.outcome for _, r in results]
    return (outcomes.count(CONTAINED), outcomes.count(ESCAPED) + outcomes.count(BROKEN),
            outcomes.count(NOT_APPLICABLE))


def summary(results):
    for group, name in GROUPS.items():
        of_group = [(c, r) for c, r in results if c and c.group == group]
        if of_group:
            passed, failed, skipped = count(of_group)
            print(f"  {group}  {name:30} {passed:3} contained, {failed:2} escaped or broken, {skipped:2} not applicable")
    for outcome in (ESCAPED, BROKEN, NOT_APPLICABLE):
        for case, result in results:
            if result.outcome == outcome:
                print(f"  {case.id if case else 'host':4} {outcome}: {result.text}")


def main(argv, about):
    args = parse(argv, about)
    if args.list:
        for c in args.cases:
            print(f"{c.id:4} {c.how:7} {c.title}\n{'':13}expected: {c.expected}" +
                  (f"\n{'':13}{', '.join(c.cves)}" if c.cves else ""))
        print(f"{len(args.cases)} cases")
        return 0
    if os.geteuid() != 0:
        print("0 passed, 0 failed, 1 skipped (the positive controls need root)")
        return 77
    from cases.proc import heal_cores
    hush()
    heal_cores()
    subprocess.run(["make", "-s", "--no-print-directory", "-C", str(ROOT), "battery-programs"], check=True,
                   stdout=sys.stderr)
    home = tempfile.mkdtemp(prefix="battery-", dir="/var/tmp")
    os.chmod(home, 0o755)
    try:
        own_mounts(home)
        adopt_orphans()
        programs = [ROOT / "build" / name for name in ("spaced", "spacectl", "sandbox", "proxy")]
        results = []
        for config in CONFIGS.values() if args.matrix else [CONFIGS[args.config]]:
            cases = [c for c in args.cases if config.has(c, args.brief)]
            why = lacking(config, ROOT)
            print(f"\n{config.name}: {config.about}" + (f": not applicable: {why}" if why else ""))
            if why:
                results.append((None, Result(NOT_APPLICABLE, f"configuration {config.name}: {why}")))
            else:
                results += run_config(config, cases, args, [p for p in programs if p.exists()])
    finally:
        LIBC.umount2(b"/tmp", 2)
        shutil.rmtree(home, ignore_errors=True)
    print()
    summary(results)
    passed, failed, skipped = count(results)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    outcomes = {r.outcome for _, r in results}
    return 1 if ESCAPED in outcomes else 99 if BROKEN in outcomes else 0 if CONTAINED in outcomes else 77


