"""A server of one page to this machine alone: a secret in the address, the page and its voxels, nothing else."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from cdm4mi.errors import UserError
from cdm4mi.viewer.page import END, html
from cdm4mi.viewer.scene import Scene

LOOPBACK = "127.0.0.1"
HOSTS = (LOOPBACK, "localhost")
"""Names under which the page may be asked for: another site that calls itself this machine (DNS rebinding) may not."""
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Server(ThreadingHTTPServer):
    """Answers GET of ``/SECRET/`` with the page and of ``/SECRET/NAME`` with a block of voxels; 404 for all else."""

    daemon_threads = True

    def __init__(self, scene: Scene, port: int) -> None:
        self.secret = secrets.token_urlsafe(24)
        page = (html(scene, served=True) + END).encode()
        blocks = {name: codes.data.cast("B") for name, codes in scene.blocks().items()}
        self.content: dict[str, Any] = {"": page, **blocks}
        super().__init__((LOOPBACK, port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over a browser that hangs up while it is answered."""

    @property
    def address(self) -> str:
        """Where a browser on this machine finds the page."""
        return f"http://{LOOPBACK}:{self.server_port}/{self.secret}/"


class Handler(BaseHTTPRequestHandler):
    """One request to a ``Server``."""

    server: Server
    server_version, sys_version = "cdm4mi", ""

    def do_GET(self) -> None:
        _, secret, name = parts if len(parts := self.path.split("/")) == 3 else ("", "", "")
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        found = self.server.content.get(name)
        allowed = hmac.compare_digest(secret.encode(), self.server.secret.encode()) and host in HOSTS
        if not allowed or found is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream" if name else "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(found)))
        for header, value in HEADERS.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(found)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the address holds the secret."""


@contextmanager
def serving(scene: Scene, port: int = 0) -> Iterator[Server]:
    """A server of the page on the loopback address, at a free port or the given one; closed when the block ends.

    Raises UserError where the port is not free.
    """
    try:
        server = Server(scene, port)
    except OSError as error:
        raise UserError(f"`port`: found {port} ({error.strerror}), expected a port that is free") from None
    with server:
        yield server
