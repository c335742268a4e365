"""Servers that answer as a test says: for what no healthy collector does on demand."""

import gzip
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc

from collector.v1 import collector_pb2 as pb
from collector.v1.collector_pb2_grpc import CollectorServicer, add_CollectorServicer_to_server

Pair = tuple[Path, Path]  # a key and its certificate
Events = list[dict[str, Any]]
Answer = tuple[int, object, dict[str, str]]  # status, body as JSON, headers
Answers = Callable[[int, Events], Answer | None]  # from the number of the request (from 0) and its events; None cuts the connection


def ok(events: Sequence[object], rejected: Sequence[tuple[int, str]] = ()) -> Answer:
    """All are taken but those named."""
    refused = [{"index": index, "reason": reason, "detail": "as the test says", "id": None} for index, reason in rejected]
    return 200, {"accepted": len(events) - len(refused), "rejected": refused}, {}


def error(status: int, code: str = "c", **headers: str) -> Answer:
    """A refusal."""
    return status, {"code": code, "message": "as the test says"}, {name.replace("_", "-"): value for name, value in headers.items()}


class Rest:
    """A collector over HTTP. `requests` are the events of each request, `taken` the ids of those that were answered 200."""

    def __init__(self, answers: Answers, pair: Pair | None) -> None:
        self.requests: list[Events] = []
        self.headers: list[dict[str, str]] = []
        self.taken: list[str] = []
        collector, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                packed = self.headers["content-encoding"] == "gzip"
                events = json.loads(gzip.decompress(body) if packed else body)
                with lock:
                    number = len(collector.requests)
                    collector.requests.append(events)
                    collector.headers.append({name.lower(): value for name, value in self.headers.items()} | {"path": self.path})
                answer = answers(number, events)
                if answer is None:
                    self.close_connection = True
                    return
                status, value, headers = answer
                if status == 200:
                    with lock:
                        collector.taken += [event["id"] for event in events]
                text = json.dumps(value).encode()
                self.send_response(status)
                for name, said in {**headers, "content-length": str(len(text)), "content-type": "application/json"}.items():
                    self.send_header(name, said)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        if pair:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(keyfile=pair[0], certfile=pair[1])
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.address = f"https://localhost:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Rpc(CollectorServicer):
    """A collector over gRPC: a status below 300 is a reply, another one aborts the stream with the code named in the body."""

    def __init__(self, answers: Answers, pair: Pair | None) -> None:
        self._answers = answers
        self.requests: list[Events] = []
        self.headers: list[dict[str, str]] = []
        self.taken: list[str] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        add_CollectorServicer_to_server(self, self._server)
        if pair:
            credentials = grpc.ssl_server_credentials([(pair[0].read_bytes(), pair[1].read_bytes())])
            self.address = f"localhost:{self._server.add_secure_port('127.0.0.1:0', credentials)}"
        else:
            self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def PublishStream(self, request_iterator: Iterator[pb.PublishRequest], context: grpc.ServicerContext) -> Iterator[pb.PublishReply]:
        """The stream."""
        for request in request_iterator:
            events = [
                {"id": one.id, "type": one.type, "source": one.source, "subject": one.subject, "data": json.loads(one.json)}
                for one in request.events
            ]
            number = len(self.requests)
            self.requests.append(events)
            self.headers.append({str(name): str(value) for name, value in context.invocation_metadata()})
            answer = self._answers(number, events)
            if answer is None:
                context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            status, value, headers = answer
            assert isinstance(value, dict)
            if status != 200:
                context.set_trailing_metadata(tuple(headers.items()))
                context.abort(getattr(grpc.StatusCode, value["code"]), value["message"])
            self.taken += [event["id"] for event in events]
            refused = [pb.Rejected(index=one["index"], reason=one["reason"], detail=one["detail"]) for one in value["rejected"]]
            yield pb.PublishReply(accepted=value["accepted"], rejected=refused)

    def close(self) -> None:
        self._server.stop(0).wait()


@contextmanager
def scripted(kind: str, answers: Answers, pair: Pair | None = None) -> Iterator[Rest | Rpc]:
    """A collector of `kind` (rest or grpc) that answers so, over TLS where it has a pair."""
    server = Rest(answers, pair) if kind == "rest" else Rpc(answers, pair)
    try:
        yield server
    finally:
        server.close()
