"""Certificates of production: an authority of our own, and what it signs for the servers that are reached over TLS. Made with `openssl`.

`CA_CERT` is what clients check the servers' certificates against. `CA_KEY` signs new ones, and no container gets it. Of a server NAME there
are `NAME_CERT` and `NAME_KEY`, and `NAME_PEM` with both. Whoever removes the files of a server gets new ones of the same authority.
"""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import RuntimeFailure

SERVERS = ("elasticsearch", "trino")
_DAYS = {"CA": "3650", "server": "825"}
_AUTHORITY = """[req]
distinguished_name = name
x509_extensions = authority
[name]
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def write(folder: Path, servers: Sequence[str] = SERVERS) -> list[str]:
    """Make what is missing in `folder`, and name it. Raises RuntimeFailure."""
    missing = [name for name in servers if not all((folder / f"{name.upper()}_{what}").is_file() for what in ("CERT", "KEY", "PEM"))]
    authority = [folder / "CA_CERT", folder / "CA_KEY"]
    made: list[str] = []
    if not all(path.is_file() for path in authority):
        _authority(*authority)
        made, missing = [path.name for path in authority], list(servers)  # what another one signed is worth nothing
    for name in missing:
        made += _server(name, folder)
    return made


def _authority(cert: Path, key: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "config"
        config.write_text(_AUTHORITY)
        how = ("-config", str(config), "-days", _DAYS["CA"], "-subj", "/CN=Headrace", "-keyout", str(key), "-out", str(cert))
        _openssl("req", "-x509", *_NEW_KEY, *how)
    key.chmod(0o600)
    cert.chmod(0o444)


def _server(name: str, folder: Path) -> list[str]:
    cert, key, both = (folder / f"{name.upper()}_{what}" for what in ("CERT", "KEY", "PEM"))
    extensions = (
        f"subjectAltName=DNS:{name},DNS:localhost,IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n"
        "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
    )
    for path in (cert, key, both):
        path.unlink(missing_ok=True)  # one that is there may not be written
    with tempfile.TemporaryDirectory() as scratch:
        asked, more = Path(scratch) / "csr", Path(scratch) / "extensions"
        more.write_text(extensions)
        _openssl("req", "-new", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(asked))
        signed_by = ("-CA", str(folder / "CA_CERT"), "-CAkey", str(folder / "CA_KEY"), "-CAcreateserial", "-CAserial", f"{scratch}/serial")
        _openssl("x509", "-req", "-in", str(asked), *signed_by, "-days", _DAYS["server"], "-extfile", str(more), "-out", str(cert))
    both.write_text(key.read_text() + cert.read_text())
    for path in (cert, key, both):
        path.chmod(0o444)  # the folder is ours alone, and each container's own user has to be able to read its file
    return [path.name for path in (cert, key, both)]


def _openssl(*arguments: str) -> None:
    try:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise RuntimeFailure(
            f"openssl: {error.strerror}: it makes the certificates: install it with: sudo apt-get install -y openssl"
        ) from None
    if done.returncode:
        raise RuntimeFailure(f"openssl {arguments[0]}: {done.stderr.strip()[-600:]}")
