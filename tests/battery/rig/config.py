"""The configurations of the matrix: the same walls on another kind of host. What a host lacks is taken away from it by
tests/battery/shim (a seccomp filter that answers ENOSYS), as an old kernel does, not by asking the program to pretend."""
import pathlib
from dataclasses import dataclass, field

from .case import PROBE, SETUP


@dataclass(frozen=True)
class Config:
    name: str
    about: str
    env: dict = field(default_factory=dict)
    shim: str = ""  # what the shim takes away
    options: tuple = ()  # of `sandbox run`
    build: str = "build"
    changes: str = "A B C D E F"  # groups and cases whose outcome it can change
    daemon: bool = False  # also cases that need one; else it is about the launcher

    def has(self, case, brief):
        """Cases that need a daemon take long: only those that it can change; of the others too, in a brief run."""
        if case.how not in (PROBE, SETUP) and not self.daemon:
            return False
        return (case.how in (PROBE, SETUP) and not brief) or bool({case.id, case.group} & set(self.changes.split()))


CONFIGS = {c.name: c for c in (
    Config("host", "the host as it is", changes="A B C D E F G H I", daemon=True),
    # Who is limited, killed and counted how. Not I: its program runs every kind of cgroups that the host has.
    Config("v1", "cgroup v1 alone", env={"SPACED_FORCE": "cgroup_v1"}, changes="B C6 E G H4", daemon=True),
    # How the root is put together, and what can be reached in it.
    Config("legacy-mount", "without open_tree, move_mount, fsopen, fsmount, mount_setattr", shim="legacy-mount",
           changes="A B C4 D10 D14 E10"),
    Config("no-openat2", "without openat2", shim="no-openat2", changes="A B D14 E10"),
    Config("shell", "each start by way of a sandbox that was made ahead", env={"SPACED_FORCE": "shell"}),
    Config("rootless", "started without privileges", options=("--rootless",)),
    # `sandbox run` ends without giving back its options: that is no leak
    Config("asan", "the launcher under ASan and UBSan", build="build-asan",
           env={"ASAN_OPTIONS": "detect_leaks=0:exitcode=86", "UBSAN_OPTIONS": "print_stacktrace=1:exitcode=86"}),
)}


def lacking(config, root):
    """Why this host cannot run a configuration, or None."""
    if config.name == "v1" and not any(" - cgroup " in line and "memory" in line
                                       for line in open("/proc/self/mountinfo")):
        return "this host has no cgroup v1 with a memory controller"
    if config.name == "asan" and not pathlib.Path(root, config.build, "sandbox").exists():
        return "build-asan/sandbox is not built (make SANITIZE=1)"
    return None
