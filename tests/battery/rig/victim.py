"""The victim: a second sandbox beside the attacker, with a secret of its own and an HTTP server that tells whether all is
as it was. Asked from inside its network namespace, where a neighbour would have to get."""
import ctypes
import http.client
import os
import socket
import subprocess
import threading
import time

from .case import Broken
from .host import LIBC, descendants, kill_tree

CLONE_NEWNET = 0x40000000
PORT = 7860
ANSWER_S = 30

SERVER = r'''
import hashlib, http.server, os, pathlib, sys
secret = pathlib.Path("/app/secret")
secret.write_text(sys.argv[1])
os.chmod(secret, 0o600)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = f"{secret.read_text()} {os.getpid()} {sorted(os.listdir('/app'))}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *a):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", 7860), Answer).serve_forever()
'''


def sockets_in(netns):
    """A connector for a network namespace: sockets are made by a thread that has gone there."""
    def connect():
        result = []

        def go():
            try:
                if LIBC.setns(netns, CLONE_NEWNET) < 0:
                    raise OSError(ctypes.get_errno(), "setns")
                result.append(socket.create_connection(("127.0.0.1", PORT), timeout=ANSWER_S))
            except OSError as error:
                result.append(error)
        thread = threading.Thread(target=go)
        thread.start()
        thread.join()
        if isinstance(result[0], OSError):
            raise result[0]
        return result[0]
    return connect


class Victim:
    def __init__(self, command, env):
        self.secret = os.urandom(16).hex()
        self.process = subprocess.Popen([*command, "--", "python3", "-c", SERVER, self.secret], env=env,
                                        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.netns = -1
        deadline = time.monotonic() + 60
        while True:
            try:
                self.first = self.ask()
                return
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    kill_tree(self.process.pid)
                    raise Broken(f"the victim did not come up: {error}: {self.process.communicate()[1]}") from None
                time.sleep(0.02)

    def pid(self):
        """A process of the victim as the host sees it: one whose network namespace is not ours."""
        ours = os.readlink("/proc/self/ns/net")
        for pid, name in descendants(self.process.pid).items():
            try:
                if name == "python3" and os.readlink(f"/proc/{pid}/ns/net") != ours:
                    return pid
            except OSError:
                continue
        raise OSError("it has no process yet")

    def ask(self):
        if self.netns < 0:
            self.netns = os.open(f"/proc/{self.pid()}/ns/net", os.O_RDONLY)
        client = http.client.HTTPConnection("127.0.0.1", PORT, timeout=ANSWER_S)
        client.sock = sockets_in(self.netns)()
        try:
            client.request("GET", "/")
            return client.getresponse().read().decode()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from None
        finally:
            client.close()

    def harmed(self):
        try:
            now = self.ask()
        except OSError as error:
            return [f"the victim does not answer: {error}"]
        return [] if now == self.first and self.secret in now else [f"the victim has changed: {now!r}"]

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            kill_tree(self.process.pid)
            self.process.wait()
        self.process.stderr.close()
        if self.netns >= 0:
            os.close(self.netns)
