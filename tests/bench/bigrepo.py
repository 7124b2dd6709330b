"""A repository of about 100 MB as people push them: source files with a history of small edits, and some binary files.
Always the same bytes: made with `git fast-import` from a seeded generator."""
import random
import subprocess
from pathlib import Path

from harness import git_env

FILES, COMMITS, BINARIES, BINARY_BYTES = 3000, 400, 24, 3_500_000
WORDS = ("value index buffer model layer token batch result state event handler config request answer tensor weight "
         "sample train label image audio frame path name size count limit error open close read write send "
         "parse format update create remove return while for if else import from class def self None True").split()


def lines(rng, n):
    return [" " * rng.choice((0, 4, 8)) + " ".join(rng.choices(WORDS, k=rng.randint(2, 9))) for _ in range(n)]


def make_big_repository(path):
    """Returns (work tree's path, bytes of its pack, number of objects)."""
    path = Path(path)
    path.mkdir()
    env = git_env(path.parent)
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=path, env=env, check=True)
    rng = random.Random(7)
    imported = subprocess.Popen(["git", "fast-import", "--quiet"], cwd=path, env=env, stdin=subprocess.PIPE)
    out = imported.stdin
    texts = {f"src/pkg{i % 60}/mod{i}.py": lines(rng, rng.randint(40, 400)) for i in range(FILES)}

    def data(payload):
        out.write(b"data %d\n" % len(payload) + payload + b"\n")

    for commit in range(COMMITS):
        out.write(b"commit refs/heads/main\ncommitter A <a@example.org> %d +0000\n" % (1_700_000_000 + commit * 3600))
        data(f"change {commit}".encode())
        if commit == 0:
            changed = list(texts)
            for n in range(BINARIES):
                out.write(f"M 100644 inline assets/weights-{n}.bin\n".encode())
                data(rng.randbytes(BINARY_BYTES))
            out.write(b"M 100644 inline README.md\n")
            data(b"---\nsdk: static\n---\n# Big\n")
            out.write(b"M 100644 inline index.html\n")
            data(b"big\n")
        else:
            changed = rng.sample(list(texts), 25)
            for name in changed:
                for _ in range(rng.randint(1, 12)):
                    texts[name][rng.randrange(len(texts[name]))] = lines(rng, 1)[0]
        for name in changed:
            out.write(f"M 100644 inline {name}\n".encode())
            data("\n".join(texts[name]).encode())
    out.close()
    if imported.wait():
        raise SystemExit("bench: git fast-import failed")
    # As after a clone: one well-made pack, so that the client's part of a push is the same for all.
    subprocess.run(["git", "repack", "-adfq"], cwd=path, env=env, check=True)
    size = sum(p.stat().st_size for p in (path / ".git/objects/pack").glob("*.pack"))
    count = subprocess.run(["git", "rev-list", "--all", "--objects", "--count"], cwd=path, env=env, check=True,
                           capture_output=True, text=True).stdout
    return path, size, int(count)
