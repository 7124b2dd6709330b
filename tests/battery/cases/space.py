"""A6, A11, C6, E2, E5, E6: commands that an operator starts inside a running app that expects them. The attacker is a
Space of a running daemon, which runs the probe when it is asked over HTTP."""
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import threading
import time
from urllib.parse import quote

from rig.case import Acts, Broken, Escape, judge
from rig.host import sha256

SPACE = "alice/attacker"
LINK_NAMES = ("console", "tty", "ptmx", "pts/0", "pts/ptmx", "null")
TRIES = 10000
# By a terminal, in bytes. In a VM, where each MB takes seconds, it is enough that they come through.
FLOOD = 10**7 if os.environ.get("SPACED_VM") else 10**8
MEMORY_KIB = 64 << 10  # more than spacectl or all roles may grow by while they go by

RUN = '''
import subprocess, urllib.parse
def run(path):
    words = [urllib.parse.unquote(w) for w in path.split("/")[2:]]
    return subprocess.run(["/app/probe", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout
def shell(path):
    return subprocess.run(["sh", "-c", urllib.parse.unquote(path.split("/")[2])], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
def answer(path):
    return run(path) if path.startswith("/probe/") else shell(path) if path.startswith("/sh/") else b"up"
'''


def attacker(battery):
    """The daemon, with the attacker's Space on it."""
    daemon = battery.daemon()
    if SPACE not in battery.spaces:
        from apps import server
        from harness import Repo
        code = server(body="answer(self.path)").replace("KEEP = []", RUN)
        work = Repo(battery.folder("attacker") + "/repo", files={"Procfile": "web: exec python3 app.py\n", "app.py": code,
                                                                 "probe": open(battery.probe, "rb").read()})
        os.chmod(work.path / "probe", 0o755)
        work.commit("may run")
        daemon.push_ok(work, *SPACE.split("/"))
        daemon.get_ok(*SPACE.split("/"))
        battery.spaces.add(SPACE)
    return daemon


def ask(daemon, *words, timeout=300):
    return daemon.get(*SPACE.split("/"), "/" + "/".join(quote(w, safe="") for w in words), timeout=timeout).text


def exec_argv(battery, daemon, *command, options=()):
    return [str(battery.build / "spacectl"), "--state", str(daemon.state), "exec", SPACE, *options, "--", *command]


def run(battery, daemon, *command, options=()):
    return subprocess.run(exec_argv(battery, daemon, *command, options=options), stdin=subprocess.DEVNULL, text=True,
                          errors="replace", capture_output=True, timeout=120)


def in_terminal(argv, during=None):
    """What a command says in a terminal of ours."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    out, deadline = b"", time.monotonic() + 600
    try:
        while time.monotonic() < deadline:
            if during:
                during(process, master)
            if select.select([master], [], [], 0.1)[0]:
                try:
                    data = os.read(master, 1 << 16)
                except OSError:  # the other side is closed
                    break
                if not data:
                    break
                out = (out + data)[-(1 << 20):]
            elif process.poll() is not None:
                break
        process.wait(30)
    finally:
        process.kill()
        process.wait()
        os.close(master)
    return out.decode(errors="replace").replace("\r\n", "\n")


def terminal_swapped(battery):
    """A6: the app tries to put its own in the place of what a terminal is made of, then a terminal is asked for."""
    daemon = attacker(battery)
    said = ask(daemon, "sh", "; ".join(f"rm -f /dev/{n}; ln -sf /app/own /dev/{n} && echo swapped {n}" for n in LINK_NAMES)
               + "; touch /app/own; ls -l /dev")
    swapped = [line for line in said.splitlines() if line.startswith("swapped")]
    if swapped:
        raise Escape("the app has " + ", ".join(swapped))
    # every terminal that it can have is taken: the operator's is another, or none
    text = in_terminal(exec_argv(battery, daemon, "sh", "-c", "tty; stat -c '%t %T' $(tty); cat /proc/self/fd/0 </dev/null",
                                 options=("-t",)))
    name = text.split("\n")[0]
    if not name.startswith("/dev/pts/") or not text.split("\n")[1].startswith("88 "):
        raise Escape(f"the terminal is {text!r}")
    return f"with exec -t: {name}, of its own devpts"


def write_while_exec(battery):
    """A11: while commands come in, the app opens every program in /proc to write."""
    daemon = attacker(battery)
    program = battery.build / "spaced"
    before = sha256(program)
    script = ("import os\nseen, rounds = set(), 0\nwhile rounds < 3000 or not os.path.exists('/app/enough'):\n rounds += 1\n"
              " for p in os.listdir('/proc'):\n"
              "  if p.isdigit() and int(p) != os.getpid():\n"
              "   try: seen.add(os.readlink('/proc/self/fd/%d' % os.open(f'/proc/{p}/exe', os.O_WRONLY)))\n"
              "   except OSError as e: seen.add(e.errno)\nprint(*seen)\n")
    answer, commands = while_asked(battery, daemon, "sh", f'python3 -c "{script}"')
    opened = [w for w in answer.split() if not w.isdigit()]
    if opened:
        raise Escape(f"opened to write: {opened}")
    if sha256(program) != before:
        raise Escape("the daemon's program has changed")
    return f"{commands} commands with exec, no program opened"


def while_asked(battery, daemon, *words):
    """The answers of the app to something long, asked until at least three commands were run inside it meanwhile, and how many
    were. From the third on there is /app/enough, for an app that has to wait for them: on an emulated processor each takes
    seconds."""
    result, commands, enough = [], 0, threading.Event()

    def asking():
        while not result or not enough.is_set():
            result.append(ask(daemon, *words))

    thread = threading.Thread(target=asking)
    thread.start()
    try:
        while thread.is_alive():
            done = run(battery, daemon, *(("true",) if commands < 2 else ("touch", "/app/enough")))
            if done.returncode:
                raise Broken(f"exec: {done.stderr}")
            commands += 1
            if commands == 3:
                enough.set()
    finally:
        enough.set()
        thread.join()
    if not result or commands < 3:
        raise Broken(f"{commands} commands while it was asked")
    return "\n".join(result), commands


def confinement(battery, case):
    """C6: the same facts in a process of the app, and in commands with and without a terminal."""
    daemon = attacker(battery)
    app = ask(daemon, "probe", "C6")
    commands = {"exec": run(battery, daemon, "/app/probe", "C6").stdout,
                "exec -t": in_terminal(exec_argv(battery, daemon, "/app/probe", "C6", options=("-t",)))}
    facts = Acts.parse(app).facts
    outside = battery.outside(case).facts
    if not facts or facts["no_new_privs"] != "1" or facts["Seccomp"] != "2" or facts["capabilities"] != "0 0 0 0 0 0":
        raise Escape(f"the app itself is not confined: {facts}")
    if outside["no_new_privs"] != "0" or outside["capabilities"] == facts["capabilities"]:
        raise Broken("outside it looks the same")
    for how, said in commands.items():
        if said != app:
            ours, theirs = set(said.splitlines()), set(app.splitlines())
            raise Escape(f"{how} differs: {sorted(ours ^ theirs)}")
    return f"{len(app.splitlines())} facts (capabilities, ids, groups, filter, limits ...) are those of the app"


def trace_init(battery, case):
    """E2: pid 1, which starts commands for somebody outside, is traced and opened all the time."""
    daemon = attacker(battery)
    answer, commands = while_asked(battery, daemon, "probe", "E2", str(TRIES))
    inside = Acts.parse(answer)
    if inside.facts.get("tries") != str(TRIES):
        raise Broken(f"it did not try: {answer[:200]}")
    return judge(battery.outside(case), inside) + f"; {TRIES} tries while {commands} commands came in"


def tiocsti_of_exec(battery, case):
    """E5: on a terminal that the app does not own, and that somebody outside looks at."""
    daemon = attacker(battery)
    outside = Acts.parse(in_terminal([battery.probe, "E5"]))
    inside = Acts.parse(in_terminal(exec_argv(battery, daemon, "/app/probe", "E5", options=("-t",))))
    if "TIOCSTI on the own terminal" not in inside.blocked and not inside.reached:
        raise Broken(f"it has no terminal: {inside}")
    return judge(outside, inside)


def rss(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


def terminal_floods(battery, case):
    """E6: a flood on a terminal, a flood of resizes, and sequences that a terminal or a page would obey."""
    daemon = attacker(battery)
    before = daemon.memory()
    most = [0]

    def resize(process, master):
        rows = 10 + int(time.monotonic() * 1000) % 50
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80, 0, 0))
        try:
            process.send_signal(28)  # SIGWINCH
            most[0] = max(most[0], rss(process.pid))
        except (OSError, ProcessLookupError):
            pass
    text = in_terminal(exec_argv(battery, daemon, "sh", "-c", f"head -c {FLOOD} /dev/zero | tr '\\0' x; echo; echo end-of-it",
                                 options=("-t",)), during=resize)
    if "end-of-it" not in text:
        raise Broken(f"the flood did not come to its end: {text[-100:]!r}")
    grown = daemon.memory() - before
    if most[0] > MEMORY_KIB or grown > MEMORY_KIB:
        raise Escape(f"spacectl took {most[0]} KiB, the roles {grown} KiB more")
    # What an app prints is text for whoever reads it: no title is set, no key is pressed, no tag is opened.
    evil = r"\033]0;title\007\033[5n\033P+q\033\\<script>alert(1)</script>\033[201~"
    ask(daemon, "sh", f"printf '{evil}\\n' >/proc/1/fd/1 2>/dev/null; printf '{evil}\\n' >/proc/$PPID/fd/1; echo done")
    from harness import wait_for
    wait_for("the line in the log", lambda: "alert(1)" in daemon.logs(*SPACE.split("/")))
    for what, shown in (("exec", in_terminal(exec_argv(battery, daemon, "printf", evil))),
                        ("logs", in_terminal([str(battery.build / "spacectl"), "--state", str(daemon.state), "space", "logs",
                                              SPACE]))):
        if "alert(1)" not in shown:
            raise Broken(f"{what} does not show it: {shown[-200:]!r}")
        if any(s in shown for s in ("\x1b]0;", "\x1b[5n", "\x1bP", "\x1b[201~")):
            raise Escape(f"spacectl {what} hands on what a terminal obeys: {shown[-200:]!r}")
    page = daemon.request("GET", f"/spaces/{SPACE}", headers={"Cookie": ""}).text
    if "<script>alert(1)" in page:
        raise Escape("the page of the Space has the app's tag in it")
    if "alert(1)" in daemon.log_path.read_text(errors="replace"):
        raise Escape("the daemon's own log has what the app prints")
    return f"{FLOOD // 10**6} MB and {most[0]} KiB of spacectl, {max(grown, 0)} KiB of the roles; sequences are not handed on"
