"""D1, D4, D13, D14: the table of all calls, an inherited ring, Landlock alone."""
import ctypes
import os
import platform
import shutil
import subprocess

from rig.case import Acts, Broken, Escape, Inapplicable, judge
from rig.host import LIBC

GOLDEN = os.path.join(os.path.dirname(__file__), "..", "syscalls.golden")


def read_golden():
    """{number: the answers that are right}, from lines "NUMBER NAME ANSWER[|ANSWER]"."""
    table = {}
    for line in open(GOLDEN):
        if line.strip() and not line.startswith("#"):
            number, _, answers = line.split()
            table[int(number)] = set(answers.split("|"))
    return table


def every_call(battery, case):
    """D1. What is not in the golden table does not exist: ENOSYS. After a wanted change of the profile: see its head."""
    if platform.machine() != "x86_64":
        raise Inapplicable("the golden table is that of x86-64")
    inside = battery.inside(case)
    golden = read_golden()
    if os.environ.get("BATTERY_GOLDEN"):
        write_golden(inside.facts, golden)
        golden = read_golden()
    if battery.config.shim == "no-openat2":
        golden[437] = {"ENOSYS"}
    outside = battery.outside(case)
    wrong = [f"{n}: {inside.facts.get(str(n))}" for n in range(601)
             if inside.facts.get(str(n)) not in golden.get(n, {"ENOSYS"})]
    if wrong:
        raise Escape(f"other than the golden table: {', '.join(wrong)}")
    there = [n for n in range(601) if outside.facts.get(str(n)) == "reachable"]
    closed = [n for n in there if inside.facts[str(n)] != "reachable"]
    if len(closed) < 20:
        raise Broken(f"only {len(closed)} calls that nobody outside has are refused inside")
    return (f"601 numbers as in the table; of {len(there)} that the user nobody has outside, {len(closed)} are refused")


def write_golden(facts, old):
    """BATTERY_GOLDEN=1: the table of this kernel and profile. A call that older kernels or libraries do not know keeps
    its second answer."""
    names = {int(line.split()[0]): line.split()[1] for line in open(GOLDEN) if line[0].isdigit()}
    names.update({int(number): name for number, name in syscall_names()})
    head = [line for line in open(GOLDEN) if line.startswith("#")]
    with open(GOLDEN, "w") as f:
        f.writelines(head)
        for n in range(601):
            answers = {facts[str(n)]} | (old.get(n, set()) if len(old.get(n, ())) > 1 else set())
            if answers != {"ENOSYS"}:
                f.write(f"{n} {names.get(n, '-')} {'|'.join(sorted(answers, reverse=True))}\n")


def syscall_names():
    out = subprocess.run(["cc", "-E", "-dM", "-include", "sys/syscall.h", "-xc", "/dev/null"], capture_output=True,
                         text=True, check=True).stdout
    for line in out.splitlines():
        words = line.split()
        if len(words) == 3 and words[1].startswith("__NR_") and words[2].isdigit():
            yield words[2], words[1].removeprefix("__NR_")


def ring(battery, case):
    """D4, with a ring of the caller's that is open when the sandbox starts."""
    params = ctypes.create_string_buffer(120)
    fd = LIBC.syscall(425, 2, params)
    if fd < 0:
        raise Inapplicable("this kernel has no io_uring")
    try:
        battery.controls.pop(case.id, None)
        return judge(battery.outside(case, pass_fds=(fd,)), battery.inside(case, pass_fds=(fd,)))
    finally:
        os.close(fd)


def fileless(battery, case):
    inside = battery.inside(case)
    if inside.facts.get("fileless") == "refused":
        raise Broken("a fileless program does not run: the policy is that it may")
    return judge(battery.outside(case), inside)


def landlock_alone(battery, case):
    abi = LIBC.syscall(444, None, 0, 1)
    if abi <= 0:
        raise Inapplicable("this kernel has no Landlock")
    results = {}
    for verb in ("no-landlock", "landlock"):
        host, root = battery.folder(f"D14/{verb}/host"), battery.folder(f"D14/{verb}/root")
        os.mkdir(f"{root}/left")
        os.mkdir(f"{root}/tmp")  # the launcher tries there whether Landlock holds
        for name in ("file", "victim"):
            with open(f"{host}/{name}", "w") as f:
                f.write("x")
        done = subprocess.run([battery.walls, verb, host, root], capture_output=True, text=True,
                              timeout=60)
        results[verb] = Acts.parse(done.stdout, done.stderr)
        if done.returncode or not results[verb]:
            raise Broken(f"walls {verb}: {done.stderr}")
    shutil.rmtree(battery.folder("D14"))
    return judge(results["no-landlock"], results["landlock"])
