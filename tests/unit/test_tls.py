"""TLS as the collector serves it: real handshakes, with certificates made on the spot."""

import asyncio
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest

from collector import http2
from collector.admission import Admission
from collector.http2 import frames
from collector.http2.calls import Method, Service
from collector.tls import server_context


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs (a, b) for localhost, and a's key encrypted."""
    folder = tmp_path_factory.mktemp("tls")
    for name in "ab":
        certificate(folder / f"{name}.crt", folder / f"{name}.key")
    run("openssl", "pkey", "-in", folder / "a.key", "-aes256", "-passout", "pass:x", "-out", folder / "locked.key")
    (folder / "nonsense").write_text("nonsense")
    return folder


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


def certificate(certificate: Path, key: Path) -> None:
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject, "-keyout", key, "-out", certificate)


async def greet(context: ssl.SSLContext, client: ssl.SSLContext) -> tuple[bytes, str | None, str | None]:
    """What the client reads, and the version and the protocol agreed on."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="localhost")
        agreed = writer.get_extra_info("ssl_object")
        told = await reader.read(), agreed.version(), agreed.selected_alpn_protocol()
        writer.close()
        return told


@pytest.mark.parametrize(("version", "name"), [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")])
def test_rest_speaks_tls(folder: Path, version: ssl.TLSVersion, name: str) -> None:
    client = ssl.create_default_context(cafile=folder / "a.crt")
    client.minimum_version = client.maximum_version = version
    client.set_alpn_protocols(["h2", "http/1.1"])
    assert asyncio.run(greet(server_context(folder / "a.crt", folder / "a.key"), client)) == (b"hello", name, "http/1.1")


def test_rest_speaks_nothing_older_and_shows_its_own_certificate(folder: Path) -> None:
    context = server_context(folder / "a.crt", folder / "a.key")
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(folder / "a.crt")
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        asyncio.run(greet(context, old))
    with pytest.raises(ssl.SSLCertVerificationError):
        asyncio.run(greet(context, ssl.create_default_context(cafile=folder / "b.crt")))


def test_grpc_speaks_tls(folder: Path) -> None:
    async def call(root: Path) -> bytes:
        bounds = http2.Bounds()
        service = Service({"/x/y": Method(lambda body, _, place: place(body))}, bounds)
        server = http2.Server(
            service.stream, bounds, Admission(1_000_000), server_context(folder / "a.crt", folder / "a.key", protocol="h2")
        )
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        await server.start(listener)
        try:
            async with grpc.aio.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(root.read_bytes())) as channel:
                said: Any = channel.unary_unary("/x/y")
                large = b"hello" * 50_000
                assert bytes(await said(large)) == large
                return bytes(await said(b"hello"))
        finally:
            await server.stop(0)

    assert asyncio.run(call(folder / "a.crt")) == b"hello"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        asyncio.run(call(folder / "b.crt"))
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_who_does_not_ask_for_http2_is_sent_away(folder: Path) -> None:
    async def said(*protocols: str) -> bytes:
        bounds = http2.Bounds()
        server = http2.Server(
            Service({}, bounds).stream, bounds, Admission(0), server_context(folder / "a.crt", folder / "a.key", protocol="h2")
        )
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        await server.start(listener)
        client = ssl.create_default_context(cafile=folder / "a.crt")
        client.set_alpn_protocols(protocols)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="localhost")
        writer.write(frames.PREFACE + frames.settings({}))
        got = await reader.read(9)
        writer.close()
        await server.stop(0)
        return got

    assert asyncio.run(said("http/1.1")) == b""
    assert asyncio.run(said("h2"))[3] == frames.SETTINGS


@pytest.mark.parametrize(
    ("certificate", "key", "says"),
    [
        ("none.crt", "a.key", "none.crt: No such file or directory (setting COLLECTOR_TLS_CERT_FILE)"),
        ("a.crt", "none.key", "none.key: No such file or directory (setting COLLECTOR_TLS_KEY_FILE)"),
        ("a.crt", "b.key", "they do not belong together"),
        ("a.crt", "nonsense", "they are not PEM"),
        ("nonsense", "a.key", "they are not PEM"),
        ("a.key", "a.crt", "they are not PEM"),
        ("a.crt", "locked.key", "the key is encrypted"),
    ],
)
def test_a_pair_that_cannot_be_used_is_one_sentence(folder: Path, certificate: str, key: str, says: str) -> None:
    with pytest.raises(OSError, match=r"^TLS: ") as caught:
        server_context(folder / certificate, folder / key)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
