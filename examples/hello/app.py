"""Says hello. Python's standard library only: see README.md."""
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

STARTED = time.time()
PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")


class State:
    visits = 0


def facts():
    return {
        "space": os.environ.get("SPACE_ID", "nobody/hello"),
        "visits": State.visits,
        "started": STARTED,
        "uptime": round(time.time() - STARTED, 1),
        "cpu": os.environ.get("CPU_CORES", str(os.cpu_count())),
        "memory": os.environ.get("MEMORY", "?"),
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/":
            State.visits += 1
            self.answer(PAGE.replace("{{space}}", facts()["space"]), "text/html; charset=utf-8")
        elif url.path == "/api/hello":
            name = parse_qs(url.query).get("name", ["world"])[0]
            self.answer(json.dumps({"hello": name, **facts()}), "application/json")
        elif url.path == "/events":
            self.events()
        else:
            self.answer("Nothing here.\n", "text/plain", 404)

    do_HEAD = do_GET

    def answer(self, text, content_type, status=200):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def events(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            while True:
                self.wfile.write(f"data: {json.dumps(facts())}\n\n".encode())
                self.wfile.flush()
                time.sleep(1)
        except OSError:
            pass  # the visitor left


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "7860"))
    server = ThreadingHTTPServer(("0.0.0.0", port), Handler)
    server.daemon_threads = True
    print(f"listening on {port}", flush=True)
    server.serve_forever()
