"""Stands in front of an Elasticsearch without X-Pack where the configuration asks for X-Pack's security: TLS, and names with passwords.

Users are `elastic` with ELASTIC_PASSWORD, and whoever it makes through the security API. What a role may do is kept and not enforced.
"""

import base64
import hashlib
import hmac
import http.client
import json
import os
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HOME = Path("/usr/share/elasticsearch")
USERS = HOME / "data" / "front-users.json"
LOCK = threading.Lock()


def hashed(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def users() -> dict[str, str]:
    made: dict[str, str] = json.loads(USERS.read_text()) if USERS.is_file() else {}
    return {**made, "elastic": hashed(os.environ["ELASTIC_PASSWORD"])}


class Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 300
    disable_nagle_algorithm = True

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        who = self.who()
        if who is None:
            self.reply(401, {"error": {"type": "security_exception", "reason": "missing or wrong credentials"}, "status": 401})
        elif self.path.startswith("/_security/"):
            self.security(who, json.loads(body or "{}"))
        else:
            self.forward(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def who(self) -> str | None:
        kind, _, code = self.headers.get("Authorization", "").partition(" ")
        try:
            name, _, password = base64.b64decode(code).decode().partition(":")
        except ValueError:
            return None
        known = users().get(name)
        return name if kind.lower() == "basic" and known and hmac.compare_digest(known, hashed(password)) else None

    def security(self, who: str, body: dict[str, Any]) -> None:
        _, _, what, name = [*self.path.partition("?")[0].split("/"), "", ""][:4]
        if who != "elastic":
            self.reply(403, {"error": {"type": "security_exception", "reason": f"{who} may not"}, "status": 403})
        elif what == "role" and {*body} >= {"cluster", "indices"}:
            self.reply(200, {"role": {"created": True}})
        elif what == "user" and {*body} >= {"password", "roles"}:
            with LOCK:
                made = {key: value for key, value in users().items() if key != "elastic"} | {name: hashed(body["password"])}
                USERS.write_text(json.dumps(made))
            self.reply(200, {"created": True})
        else:
            self.reply(400, {"error": {"type": "bad_request", "reason": self.path}, "status": 400})

    def forward(self, body: bytes) -> None:
        behind = http.client.HTTPConnection("127.0.0.1", int(os.environ["BEHIND_PORT"]), timeout=self.timeout)
        kept = {name: value for name, value in self.headers.items() if name.lower() not in ("authorization", "host", "connection")}
        try:
            behind.request(self.command, self.path, body, kept)
            got = behind.getresponse()
            self.send(got.status, got.read(), {name: value for name, value in got.getheaders() if name.lower() != "transfer-encoding"})
        except OSError as error:
            self.reply(503, {"error": {"type": "not_there", "reason": str(error)}, "status": 503})
        finally:
            behind.close()

    def reply(self, status: int, body: dict[str, Any]) -> None:
        headers = {"content-type": "application/vnd.elasticsearch+json;compatible-with=8", "X-elastic-product": "Elasticsearch"}
        self.send(status, json.dumps(body).encode(), headers | ({"WWW-Authenticate": 'Basic realm="security"'} if status == 401 else {}))

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", headers.get("content-length", "0") if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: so a handshake that does not come holds up nobody else."""
        request.settimeout(30)
        try:
            encrypted = _context.wrap_socket(request, server_side=True)
        except OSError:
            return
        Front(encrypted, client_address, self)


if __name__ == "__main__":
    _context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _cert, _key = (HOME / "config" / os.environ[f"ES_SETTING_XPACK_SECURITY_HTTP_SSL_{what}"] for what in ("CERTIFICATE", "KEY"))
    _context.load_cert_chain(_cert, _key)
    Server(("0.0.0.0", int(os.environ["FRONT_PORT"])), Front).serve_forever()  # noqa: S104 - in a container
