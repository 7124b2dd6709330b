"""Small apps that tests push: a web server in a few lines, with holes for what a test needs."""

SERVER = """
import json, os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
KEEP = []
class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body, status = {{body}}, 200
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
print("serving", flush=True)
ThreadingHTTPServer(("0.0.0.0", {{port}}), H).serve_forever()
"""


def server(text="hello", port='int(os.environ["PORT"])', body=None):
    """Source of a server that answers `text`, or what the Python expression `body` (bytes) gives; self.path is there."""
    return SERVER.replace("{{body}}", body or repr(text.encode())).replace("{{port}}", str(port))


def app_files(text="hello", command="python3 app.py", **kw):
    return {"Procfile": f"web: {command}\n", "app.py": server(text, **kw)}


def header(**keys):
    return "---\n" + "".join(f"{k}: {v}\n" for k, v in keys.items()) + "---\n# Test\n"


def static_files(text="hello"):
    return {"README.md": header(sdk="static"), "index.html": text}
