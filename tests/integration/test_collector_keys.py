"""Who may send, and how much: the real collector and the real command, on librdkafka's in-process broker."""

import json
import queue
import socket
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from collector.v1 import collector_pb2 as pb
from collector.v1.collector_pb2_grpc import CollectorStub
from headrace import dead_letter, event
from runtime.probes import http_ok
from tests.collector_mock_kafka import MockKafka, mock_kafka
from tests.collector_process import KEY, CollectorProcess, collector
from tests.collector_real_kafka import ROOT

RAW, DEAD = event.RAW_TOPIC, "dead-letter.collector"


@pytest.fixture(scope="module")
def broker() -> Iterator[MockKafka]:
    with mock_kafka() as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("collector")


@pytest.fixture(scope="module")
def server(broker: MockKafka, folder: Path) -> Iterator[CollectorProcess]:
    with collector(broker.address, folder) as running:
        running.wait()
        yield running


@pytest.fixture(scope="module")
def headrace(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """`headrace keys …` on the file of the collector's keys."""
    env = tmp_path_factory.mktemp("env") / ".env"
    env.write_text(f"COLLECTOR_KEYS_FILE={folder}/keys.json\nSCHEMAS_DIR=schemas\n")

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "cli", "keys", *arguments]
        done = subprocess.run(command, cwd=ROOT, env={"HEADRACE_ENV_FILE": str(env)}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture
def source() -> str:
    return f"source-{uuid.uuid4().hex[:8]}"


def login(source: str, **changes: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": str(uuid.uuid4()), "source": source, "type": "login", "subject": "u", "data": {}} | changes


def post(server: CollectorProcess, key: str, body: Any, path: str = "/v1/events", **headers: str) -> httpx.Response:
    return httpx.post(server.rest + path, json=body, auth=(key, ""), headers=headers, timeout=30)


def until(done: Callable[[], bool]) -> None:
    """The collector looks at the keys each second; the machine may be slow."""
    for _ in range(300):
        if done():
            return
        time.sleep(0.1)
    raise AssertionError("not within 30 s")


def made(server: CollectorProcess, headrace: Callable[..., str], source: str, *options: str) -> str:
    """A key that the collector knows."""
    key = headrace("make", "--source", source, *options)
    until(lambda: post(server, key, []).status_code == 200)
    return key


def letters(server: CollectorProcess, source: str) -> list[tuple[str, str | None]]:
    found = [dead_letter.decode(value) for _, value in server.written(DEAD)]
    return [(one.reason.value, one.key_id) for one in found if one.source == source]


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    return str(answer.json()["message"])


def test_a_key_comes_and_goes_without_a_restart(server: CollectorProcess, headrace: Callable[..., str], source: str) -> None:
    pid = server.process.pid
    first, second = made(server, headrace, source), made(server, headrace, source)
    for key in (first, second):
        assert post(server, key, login(source)).json() == {"accepted": 1, "rejected": []}
    headrace("revoke", first[4:12])
    until(lambda: post(server, first, []).status_code == 401)
    refused(post(server, first, login(source)), 401, "unauthorized")
    assert post(server, second, login(source)).json()["accepted"] == 1
    third = made(server, headrace, source)
    assert post(server, third, login(source)).json()["accepted"] == 1
    ids = [event.decode_raw(value).receipt.key_id for key, value in server.written(RAW) if key.startswith(source.encode())]
    assert sorted(map(str, ids)) == sorted([first[4:12], second[4:12], second[4:12], third[4:12]])
    assert (server.process.pid, server.process.poll()) == (pid, None)
    assert not any(key[13:] in server.log.read_text() for key in (first, second, third))


def test_a_file_that_cannot_be_read_changes_nothing(broker: MockKafka, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text('{"keys": [')
    with collector(broker.address, tmp_path) as server:
        server.wait()
        assert post(server, KEY, login("shop")).status_code == 200
        assert "headrace_collector_keys_readable 0.0" in httpx.get(f"{server.rest}/metrics").text
        file.unlink()
        until(lambda: "headrace_collector_keys_readable 1.0" in httpx.get(f"{server.rest}/metrics").text)
        said = [json.loads(line) for line in server.log.read_text().splitlines()]
        assert [line["level"] for line in said if "the write keys cannot be read" in line["event"]] == ["error"]
        assert server.stop() == 0
        assert "Traceback" not in server.log.read_text()


def test_what_a_key_is_not_bound_to_is_dead_lettered(server: CollectorProcess, headrace: Callable[..., str], source: str) -> None:
    key = made(server, headrace, source, "--types", "login,page_view")
    answer = post(server, key, [login(source), login("bank", subject=source), login(source, type="purchase"), login(source)])
    assert (answer.status_code, answer.json()["accepted"]) == (200, 2)
    assert [(one["index"], one["reason"]) for one in answer.json()["rejected"]] == [(1, "not_allowed"), (2, "not_allowed")]
    assert letters(server, source) == [("not_allowed", key[4:12])]
    assert [one for one in letters(server, "bank") if one[1] == key[4:12]] == [("not_allowed", key[4:12])]
    call = {"type": "track", "event": "login", "userId": "u", "messageId": f"m-{source}", "source": "bank"}
    answer = post(server, key, {"batch": [call, call | {"type": "group"}]}, "/v1/batch")
    assert (answer.json()["accepted"], answer.json()["rejected"][0]["reason"]) == (1, "not_allowed")
    assert [key for key, _ in server.written(RAW)].count(f"{source}\x1fm-{source}".encode()) == 1
    with grpc.insecure_channel(server.grpc) as channel:
        events = [pb.Event(id=str(n), source=of, type="login", subject="u", json=b"{}") for n, of in enumerate([source, "bank"])]
        reply = CollectorStub(channel).Publish(pb.PublishRequest(events=events), metadata=bearer(key))
    assert (reply.accepted, [(one.index, one.reason) for one in reply.rejected]) == (1, [(1, "not_allowed")])


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)


def test_too_many_events_are_refused_as_a_whole_and_taken_later(
    server: CollectorProcess, headrace: Callable[..., str], source: str
) -> None:
    def landed() -> int:
        return len([one for one, _ in server.written(RAW) if one.startswith(source.encode())])

    headers = {"content-type": "application/json"}
    for _ in range(20):  # in a second the key earns an event: on a machine that is so slow an attempt says nothing
        key, before, batch = made(server, headrace, source, "--events-per-second", "1"), landed(), [login(source) for _ in range(2)]
        began = time.monotonic()
        first, answer = post(server, key, [login(source) for _ in range(5)]), post(server, key, batch)
        bad = [  # these cost too, since they are kept
            httpx.post(f"{server.rest}/v1/batch", content=body, auth=(key, ""), headers=headers)
            for body in (b"nonsense", b'{"no": "event"}')
        ]
        if time.monotonic() - began < 1:
            break
    assert first.json()["accepted"] == 5
    assert f"in {answer.headers['retry-after']} s" in refused(answer, 429, "too_many_requests")
    assert answer.headers["retry-after"] == "2"
    for each in bad:
        refused(each, 429, "too_many_requests")
    assert landed() == before + 5
    assert all(key[4:12].encode() not in value for _, value in server.written(DEAD))
    time.sleep(int(answer.headers["retry-after"]))
    until(lambda: post(server, key, batch).status_code == 200)
    assert landed() == before + 7
    over = f'headrace_collector_over_quota_total{{key_id="{key[4:12]}"}}'
    assert over in httpx.get(f"{server.rest}/metrics").text


def test_bytes_count_after_decompression(server: CollectorProcess, headrace: Callable[..., str], source: str) -> None:
    key = made(server, headrace, source, "--bytes-per-second", "1000")
    large = login(source, data={"a": "x" * 7000})
    assert post(server, key, large).status_code == 200  # more than the burst, which was full
    answer = post(server, key, login(source))
    refused(answer, 429, "too_many_requests")
    assert 1 <= int(answer.headers["retry-after"]) <= 3


def test_grpc_is_limited_too(server: CollectorProcess, headrace: Callable[..., str], source: str) -> None:
    key = made(server, headrace, source, "--events-per-second", "1")
    request = pb.PublishRequest(events=[pb.Event(id=str(n), source=source, type="login", subject="u", json=b"{}") for n in range(5)])
    with grpc.insecure_channel(server.grpc) as channel:
        stub = CollectorStub(channel)
        assert stub.Publish(request, metadata=bearer(key)).accepted == 5
        for call in (
            lambda: stub.Publish(request, metadata=bearer(key)),
            lambda: list(stub.PublishStream(iter([request]), metadata=bearer(key))),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            trailer: Any = caught.value.trailing_metadata()
            assert 1 <= int(dict(trailer)["retry-after"]) <= 5
    assert len([one for one, _ in server.written(RAW) if one.startswith(source.encode())]) == 5


def test_a_revoked_key_ends_an_open_stream(server: CollectorProcess, headrace: Callable[..., str], source: str) -> None:
    key = made(server, headrace, source)
    requests: queue.Queue[pb.PublishRequest | None] = queue.Queue()
    with grpc.insecure_channel(server.grpc) as channel:
        replies = CollectorStub(channel).PublishStream(iter(requests.get, None), metadata=bearer(key))
        requests.put(pb.PublishRequest(events=[pb.Event(id="1", source=source, type="login", subject="u", json=b"{}")]))
        assert next(replies).accepted == 1
        headrace("revoke", key[4:12])
        until(lambda: post(server, key, []).status_code == 401)
        requests.put(pb.PublishRequest(events=[pb.Event(id="2", source=source, type="login", subject="u", json=b"{}")]))
        with pytest.raises(grpc.RpcError) as caught:
            next(replies)
        requests.put(None)
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert [one for one, _ in server.written(RAW) if one.startswith(source.encode())] == [f"{source}\x1f1".encode()]


def test_pages_of_other_origins_may_not_use_a_key(server: CollectorProcess, headrace: Callable[..., str], source: str) -> None:
    own, other = f"https://{source}.example", f"https://other-{source}.example"
    asked = {"access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in httpx.options(f"{server.rest}/v1/batch", headers={"origin": own} | asked).headers
    key, second = made(server, headrace, source, "--origins", own), made(server, headrace, f"x-{source}", "--origins", other)
    for origin in (own, other, "http://shop.example"):
        allowed = httpx.options(f"{server.rest}/v1/batch", headers={"origin": origin} | asked)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (204, origin)
    for of, origin in ((key, own), (second, other), (KEY, "http://shop.example")):
        answer = post(server, of, [login(source)], origin=origin)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
    for of, origin in (
        (key, other),
        (key, "http://shop.example"),
        (KEY, own),
        (key, "null"),
        (key, "*"),
        (key, own + "/"),
        (key, own.upper()),
    ):
        for answer in (
            post(server, of, [login(source, id="forbidden")], origin=origin),
            httpx.post(f"{server.rest}/v1/batch", json={"writeKey": of, "batch": []}, headers={"origin": origin}),
        ):
            refused(answer, 403, "origin_not_allowed")
            assert not [name for name in answer.headers if name.startswith("access-control")]
    assert post(server, key, login(source)).status_code == 200
    assert not [one for one, _ in server.written(RAW) + server.written(DEAD) if one.endswith(b"forbidden")]
    headrace("revoke", key[4:12])
    headrace("revoke", second[4:12])
    preflight = {"origin": own} | asked
    until(lambda: "access-control-allow-origin" not in httpx.options(f"{server.rest}/v1/batch", headers=preflight).headers)


def test_production_needs_no_ready_made_key_and_takes_none(
    broker: MockKafka, headrace: Callable[..., str], folder: Path, source: str
) -> None:
    with collector(broker.address, folder, HEADRACE_PROFILE="production") as server:
        assert server.process.wait(30) == 2
        assert server.log.read_text() == (
            "setting HEADRACE_WRITE_KEY: production starts with no ready-made key: leave it empty, and make keys with "
            "`headrace keys make` (see .env.example)\n"
        )
    with collector(broker.address, folder, HEADRACE_PROFILE="production", HEADRACE_WRITE_KEY="") as server:
        server.wait()
        refused(post(server, KEY, []), 401, "unauthorized")
        refused(post(server, "", []), 401, "unauthorized")
        assert post(server, made(server, headrace, source), login(source)).json()["accepted"] == 1
        headers = {"origin": "http://shop.example", "access-control-request-method": "POST"}
        assert "access-control-allow-origin" not in httpx.options(f"{server.rest}/v1/batch", headers=headers).headers


# ---- what a client says of itself
EVIL = 'evil\r\nx-injected: 1\r\n\r\n{"event":"forged"}\x00\x1b[2J\x85\u2028'
OWNED = dict.fromkeys(("receipt", "received_at", "collector_id", "key_id", "client", "protocol", "user_agent"), "evil")


def test_what_the_server_owns_is_not_taken_from_a_client(server: CollectorProcess, source: str) -> None:
    forged = {"x-forwarded-for": "192.0.2.1", "forwarded": "for=192.0.2.1", "x-real-ip": "192.0.2.1", "user-agent": "honest"} | {
        f"ce-{name.replace('_', '')}": "evil" for name in OWNED
    }
    assert post(server, KEY, OWNED | login(source, id="one"), **forged).status_code == 200
    call = OWNED | {"messageId": "two", "event": "login", "userId": "u", "context": OWNED | {"ip": "192.0.2.1"}}
    assert post(server, KEY, call, "/v1/track", **forged).status_code == 200
    binary = forged | {"ce-id": "three", "ce-source": source, "ce-type": "login", "ce-subject": "u", "ce-specversion": "1.0"}
    assert post(server, KEY, {}, **binary).json()["accepted"] == 1
    with grpc.insecure_channel(server.grpc) as channel:
        request = pb.PublishRequest(events=[pb.Event(id="four", source=source, type="login", subject="u", json=b"{}")])
        evil = [(name.replace("_", "-"), "evil") for name in OWNED]
        metadata = (*bearer(KEY), *evil, ("x-forwarded-for", "192.0.2.1"))
        assert CollectorStub(channel).Publish(request, metadata=metadata).accepted == 1
    found = [event.decode_raw(value) for _, value in server.written(RAW)]
    ours = {one.id: one for one in found if one.source == source or one.id == "two"}
    assert sorted(ours) == ["four", "one", "three", "two"]
    assert len({one.receipt.client for one in ours.values()}) == 1
    for one in ours.values():
        assert b"evil" not in event.encode(one)
        assert one.received_at > "2026"
        assert one.receipt.collector_id == "collector"
    assert [ours[id].receipt.user_agent for id in ("one", "two", "three")] == ["honest"] * 3


def test_nothing_that_a_client_sends_is_raw_in_logs_or_headers(server: CollectorProcess, headrace: Callable[..., str], source: str) -> None:
    key = made(server, headrace, source)
    body = json.dumps([login(EVIL), login(source, type=EVIL), login(source, id=EVIL), login(source, time=EVIL, subject=EVIL)])
    host, port = server.rest.removeprefix("http://").split(":")
    answers = []
    for path, headers in [
        ("/v1/events", {"User-Agent": EVIL, "Authorization": f"Bearer {key}"}),
        ("/v1/events", {"Origin": EVIL, "Authorization": f"Bearer {key}"}),
        ("/v1/events", {"Authorization": f"Bearer {EVIL}"}),
        ("/v1/events", {"Content-Type": EVIL, "Authorization": f"Bearer {key}"}),
        ("/v1/events", {"Content-Encoding": EVIL, "Authorization": f"Bearer {key}"}),
        ("/v1/evil%0d%0ax-injected:%201%0d%0a%0d%0a", {}),
        ("/v1/track?writeKey=evil%0d%0ax-injected:%201", {}),
    ]:
        for break_ in ("\r\n", "\n", "\r", " ", "\x00"):
            lines = "".join(f"{name}: {value.replace(chr(13) + chr(10), break_)}\r\n" for name, value in headers.items())
            sent = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{lines}\r\n{body}"
            with socket.create_connection((host, int(port)), timeout=30) as connection, connection.makefile("rb") as answer:
                connection.sendall(sent.encode())
                answers.append(answer.read())
    for one in answers:
        head = one.partition(b"\r\n\r\n")[0]
        assert head.startswith(b"HTTP/1.1 "), one
        assert b"injected" not in head
        assert b"evil" not in head
    with grpc.insecure_channel(server.grpc) as channel:
        stub = CollectorStub(channel)
        bad = pb.Event(id=EVIL, source=EVIL, type=EVIL, json=EVIL.encode())
        reply = stub.Publish(pb.PublishRequest(events=[bad]), metadata=(*bearer(key), ("x-note", "evil \\r\\n")))
        assert reply.rejected[0].reason in ("invalid_attribute", "not_allowed")
        with pytest.raises(grpc.RpcError) as caught:
            stub.Publish(pb.PublishRequest(), metadata=(("authorization", "Bearer evil%0d%0a"),))
        assert "evil" not in str(caught.value.trailing_metadata()) + str(caught.value.details())
    log = server.log.read_bytes()
    assert b"injected" not in log
    assert b"forged" not in log
    assert not set(log) & (set(range(32)) - {10})
    for line in log.splitlines():
        assert json.loads(line)["service"] == "collector"
    for _, value in server.written(RAW) + server.written(DEAD):
        assert not set(value) & set(range(32))


# ---- TLS
@pytest.fixture
def pair(tmp_path: Path) -> dict[str, str]:
    certificate, key = tmp_path / "server.crt", tmp_path / "server.key"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        *subject,
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run(made, check=True, capture_output=True)
    return {"COLLECTOR_TLS_CERT_FILE": str(certificate), "COLLECTOR_TLS_KEY_FILE": str(key)}


def accepted(stub: Any, request: pb.PublishRequest) -> int:
    try:
        return int(stub.Publish(request, metadata=bearer(KEY), timeout=60, wait_for_ready=True).accepted)
    except grpc.RpcError:  # Kafka may not be known yet
        return 0


def test_both_protocols_over_tls(broker: MockKafka, tmp_path: Path, pair: dict[str, str], source: str) -> None:
    root = Path(pair["COLLECTOR_TLS_CERT_FILE"]).read_bytes()
    request = pb.PublishRequest(events=[pb.Event(id="1", source=source, type="login", subject="u", json=b"{}")])
    with collector(broker.address, tmp_path, **pair) as server:
        address = f"localhost:{server.grpc.rpartition(':')[2]}"
        with grpc.secure_channel(address, grpc.ssl_channel_credentials(root)) as channel:
            stub = CollectorStub(channel)
            until(lambda: accepted(stub, request) == 1)
        with grpc.insecure_channel(server.grpc) as plain, pytest.raises(grpc.RpcError) as caught:
            CollectorStub(plain).Publish(request, metadata=bearer(KEY), timeout=30)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        rest = f"https://localhost:{server.rest.rpartition(':')[2]}"
        with httpx.Client(
            base_url=rest, auth=(KEY, ""), verify=ssl.create_default_context(cafile=pair["COLLECTOR_TLS_CERT_FILE"])
        ) as client:
            assert client.get("/readyz").json() == {"status": "ready"}
            for number in range(3):
                many = [login(source, data={"a": "x" * 20_000}) for _ in range(number * 10)]
                assert client.post("/v1/events", json=many).json() == {"accepted": len(many), "rejected": []}
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{server.rest}/v1/events", json=[], auth=(KEY, ""), timeout=30)
        assert len(server.written(RAW)) >= 31
        assert server.stop() == 0


def test_commands_reach_the_collector_over_tls(broker: MockKafka, tmp_path: Path, pair: dict[str, str]) -> None:
    with collector(broker.address, tmp_path, **pair) as server:
        until(lambda: "collector serves" in server.log.read_text())
        url = f"https://localhost:{server.rest.rpartition(':')[2]}"
        (tmp_path / ".env").write_text(f"HEADRACE_COLLECTOR_URL={url}\nHEADRACE_WRITE_KEY={KEY}\n")
        environment = {"HEADRACE_ENV_FILE": str(tmp_path / ".env"), "SSL_CERT_FILE": pair["COLLECTOR_TLS_CERT_FILE"]}
        command = [sys.executable, "-m", "cli", "events", "send", "login", "--subject", "u", "--source", "tls"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.strip()) == (0, '{"accepted":1,"rejected":[]}'), done.stderr
        done = subprocess.run(
            command, cwd=ROOT, env={"HEADRACE_ENV_FILE": environment["HEADRACE_ENV_FILE"]}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert http_ok(f"{url}/readyz"), "the runtime's question whether it is ready"


def test_who_does_not_finish_the_handshake_is_cut_off(broker: MockKafka, tmp_path: Path, pair: dict[str, str]) -> None:
    with collector(broker.address, tmp_path, COLLECTOR_RECEIVE_SECONDS="1", **pair) as server:
        until(lambda: "collector serves" in server.log.read_text())
        host, port = server.rest.removeprefix("http://").split(":")
        for sent in (b"", b"\x16\x03\x01\x02\x00", b"POST / HTTP/1.1\r\n\r\n"):
            with socket.create_connection((host, int(port)), timeout=30) as connection:
                connection.sendall(sent)
                while connection.recv(1000):
                    pass
        assert server.stop() == 0
        assert "Traceback" not in server.log.read_text()


def test_a_certificate_that_cannot_be_used_is_one_line(tmp_path: Path, pair: dict[str, str]) -> None:
    with collector("127.0.0.1:1", tmp_path, **pair | {"COLLECTOR_TLS_KEY_FILE": pair["COLLECTOR_TLS_CERT_FILE"]}) as server:
        assert server.process.wait(30) == 1
        said = server.log.read_text()
        assert "they are not PEM, or not what their names say" in said
        assert "Traceback" not in said
