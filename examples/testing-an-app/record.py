"""Record the cassettes of this project again: run ``python record.py`` in this folder.

With the real API, ``pytest --imgkit-record=rewrite`` and a key are enough. A server on loopback replaces the
API here, so recording costs nothing.
"""

import base64
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import imgkit

HERE = Path(__file__).parent
PORT = 8033
BASE_URL = f"http://127.0.0.1:{PORT}/v1"


class Api(BaseHTTPRequestHandler):
    """An image API that draws with imgkit's offline painter. It replies 429 once, and refuses swords."""

    protocol_version = "HTTP/1.1"
    busy = True

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if "rush hour" in request["prompt"] and Api.busy:
            Api.busy = False
            self.send_json(429, {"error": {"message": "Too many at once.", "code": "rate_limit_exceeded"}})
        elif "sword" in request["prompt"]:
            details = {"moderation_stage": "input", "categories": ["violence"]}
            error = {"message": "No.", "code": "moderation_blocked", "moderation_details": details}
            self.send_json(400, {"error": error})
        else:
            with imgkit.ImageService() as painter:
                image = painter.create_image(request["prompt"], size=request["size"])[0]
            self.send_json(200, {"created": 1, "data": [{"b64_json": base64.b64encode(image.data).decode()}]})

    def send_json(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("connection", "close")
        if status == 429:
            self.send_header("retry-after", "1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        """Log nothing."""


def main():
    python = (sys.executable, "-m")
    with ThreadingHTTPServer(("127.0.0.1", PORT), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        subprocess.run([*python, "pytest", "-q", "--imgkit-record=rewrite"], cwd=HERE, check=True)
        server.shutdown()
    for command in ("shrink", "check"):
        subprocess.run([*python, "imgkit", "cassette", command, "tests/cassettes"], cwd=HERE, check=True)


if __name__ == "__main__":
    main()
