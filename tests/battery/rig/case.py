"""What a case is and how it can end. The table of all cases is cases/table.py."""
from dataclasses import dataclass, field
from typing import Callable, Optional

CONTAINED, ESCAPED, NOT_APPLICABLE, BROKEN = "contained", "ESCAPED", "not applicable", "BROKEN"


@dataclass(frozen=True)
class Result:
    outcome: str
    text: str


class Escape(Exception):
    """Raised by a case: a wall was passed."""


class Inapplicable(Exception):
    """Raised by a case: this kernel lacks what the case is about; the text says what."""


class Broken(Exception):
    """Raised by a case: the attack itself did not work as it should, so nothing was proven."""


# How a case runs.
PROBE = "probe"  # tests/battery/probe inside `sandbox run`, and outside as the control
SETUP = "setup"  # an attack on the starting of a sandbox
SPACE = "space"  # inside a Space of a running daemon
DAEMON = "daemon"  # against the daemon and its tools


@dataclass(frozen=True)
class Case:
    id: str
    title: str
    expected: str
    how: str
    run: Callable  # (battery, case) -> text of what was contained; raises Escape, Inapplicable, Broken
    cves: tuple = ()
    # for PROBE
    argument: Optional[Callable] = None  # (battery) -> str
    verb: str = ""  # what the probe is asked for, when it is not the id
    options: tuple = ()  # of `sandbox run`, or (battery) -> them
    env: dict = field(default_factory=dict)  # of the caller, inside and outside
    control: tuple = ()  # more namespaces for the control, as options of unshare(1)

    @property
    def group(self):
        return self.id[0]


@dataclass
class Acts:
    """What a probe said."""
    reached: set = field(default_factory=set)
    blocked: dict = field(default_factory=dict)  # name -> errno
    facts: dict = field(default_factory=dict)
    stderr: str = ""

    @classmethod
    def parse(cls, out, stderr=""):
        acts = cls(stderr=stderr.strip())
        for line in out.splitlines():
            word, _, rest = line.partition(" ")
            if word == "reached":
                acts.reached.add(rest)
            elif word == "blocked":
                name, _, why = rest.rpartition(" (")
                acts.blocked[name] = why.rstrip(")")
            elif word == "fact":
                name, _, value = rest.partition(" ")
                acts.facts[name] = value
        return acts

    def __bool__(self):
        return bool(self.reached or self.blocked or self.facts)


def judge(outside, inside):
    """The rule of the battery for acts; returns what to print."""
    if inside.reached:
        raise Escape(", ".join(sorted(inside.reached)))
    if not outside.reached:
        raise Inapplicable("nothing of it is possible on this host even outside")
    missing = sorted(outside.reached - set(inside.blocked))
    if missing:
        raise Broken("inside, the probe never tried: " + ", ".join(missing))
    whys = sorted({inside.blocked[a] for a in outside.reached})
    acts = len(outside.reached)
    return f"{acts} {'act that succeeds' if acts == 1 else 'acts that succeed'} outside ({' '.join(whys)})"


def run_probe(battery, case):
    return judge(battery.outside(case), battery.inside(case))


def probe(id, title, expected, **more):
    """A row for a case that is all in tests/battery/probe."""
    return Case(id, title, expected, PROBE, more.pop("run", run_probe), **more)


def attack(id, title, expected, run, how=SETUP, **more):
    """A row for a case with code of its own in cases/."""
    return Case(id, title, expected, how, run, **more)
