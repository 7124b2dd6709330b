"""Shows what `figlet` makes of a word: /?text=…"""
import html
import os
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Big letters</title>
<style>
body {{ margin: 3rem; font: 18px system-ui, sans-serif; background: #fdf2f8; }}
pre {{ font-size: 14px; line-height: 1.1; overflow-x: auto; }}
input, button {{ font: inherit; padding: .3em .6em; }}
</style></head>
<body><form><input name="text" aria-label="Text" value="{text}" maxlength="40"> <button>Show</button></form>
<pre>{big}</pre></body>
</html>
"""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        text = parse_qs(urlsplit(self.path).query).get("text", ["Spaced"])[0][:40]
        big = subprocess.run(["figlet", "-w", "120", "--", text], capture_output=True, text=True, check=True).stdout
        body = PAGE.format(text=html.escape(text), big=html.escape(big)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "7860"))), Handler).serve_forever()
