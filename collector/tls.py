"""TLS for both protocols, from one pair of PEM files: the certificate, with its chain below it, and its key."""

import ssl
from pathlib import Path


def server_context(certificate: Path, key: Path, *, protocol: str = "http/1.1") -> ssl.SSLContext:
    """TLS 1.2 or later, for a protocol as ALPN names it (h2 is gRPC's). Raises OSError with one line where the pair cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # RFC 9113, 9.2.1
    context.set_alpn_protocols([protocol])
    for setting, path in (("COLLECTOR_TLS_CERT_FILE", certificate), ("COLLECTOR_TLS_KEY_FILE", key)):
        _read(path, setting)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        why = "they do not belong together" if error.reason == "KEY_VALUES_MISMATCH" else "they are not PEM, or not what their names say"
        raise OSError(
            f"TLS: {certificate} and {key}: {why} ({error.reason or error}) (settings COLLECTOR_TLS_CERT_FILE, COLLECTOR_TLS_KEY_FILE)"
        ) from None
    return context


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OSError(f"TLS: {path}: {error.strerror} (setting {setting})") from None


def _no_password() -> str:
    raise OSError("TLS: the key is encrypted: nobody is there to type its password: store it without (setting COLLECTOR_TLS_KEY_FILE)")
