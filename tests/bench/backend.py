"""git's own server side for the receive bench: `git http-backend` as CGI behind the smallest HTTP server that streams."""
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from harness import git_env

BLOCK = 1 << 16


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                while size:
                    data = self.rfile.read(min(size, BLOCK))
                    size -= len(data)
                    yield data
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            data = self.rfile.read(min(left, BLOCK))
            left -= len(data)
            yield data

    def do_GET(self):
        url = urlsplit(self.path)
        env = {**self.server.env, "REQUEST_METHOD": self.command, "PATH_INFO": url.path, "QUERY_STRING": url.query,
               "CONTENT_TYPE": self.headers.get("Content-Type", ""), "REMOTE_USER": "bench", "REMOTE_ADDR": "127.0.0.1",
               "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
               "GIT_PROTOCOL": self.headers.get("Git-Protocol", "")}
        if "Content-Length" in self.headers:
            env["CONTENT_LENGTH"] = self.headers["Content-Length"]
        cgi = subprocess.Popen(["git", "http-backend"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for data in self.body():
            cgi.stdin.write(data)
        cgi.stdin.close()
        status, headers = 200, []
        while (line := cgi.stdout.readline().strip()):
            key, _, value = line.decode().partition(": ")
            if key == "Status":
                status = int(value.split()[0])
            else:
                headers.append((key, value))
        self.send_response(status)
        for key, value in headers:
            self.send_header(key, value)
        self.send_header("Connection", "close")
        self.end_headers()
        while data := cgi.stdout.read1(BLOCK):
            self.wfile.write(data)
            self.wfile.flush()
        cgi.wait()
        self.close_connection = True

    do_POST = do_GET


class HttpBackend:
    """An empty repository that takes pushes at .url."""

    def __init__(self, home, fsck):
        home = Path(home)
        home.mkdir()
        env = git_env(home)
        subprocess.run(["git", "init", "-q", "--bare", str(home / "big.git")], check=True, env=env)
        for key, value in (("http.receivepack", "true"), ("transfer.fsckObjects", "true" if fsck else "false")):
            subprocess.run(["git", "-C", str(home / "big.git"), "config", key, value], check=True, env=env)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.env = {**env, "GIT_PROJECT_ROOT": str(home), "GIT_HTTP_EXPORT_ALL": "1", "PATH": os.environ["PATH"]}
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/big.git"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
