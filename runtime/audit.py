"""`make audit`: the list of everything that is locked (CycloneDX), and what is known against it (OSV).

What could not be checked is a failure, never a clean result: an advisory service that does not answer, or answers for fewer packages than
were asked for.
"""

import argparse
import json
import re
import sys
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

_ADVISORIES = "https://api.osv.dev"
_AT_ONCE = 500  # packages in one question; OSV takes 1,000
_POM = {"m": "http://maven.apache.org/POM/4.0.0"}
_PURL = {"PyPI": "pypi", "crates.io": "cargo", "Maven": "maven", "Go": "golang"}


@dataclass(frozen=True, order=True)
class Package:
    """One version of one package; `ecosystem` and `name` as OSV writes them (Maven: group:artifact)."""

    ecosystem: str
    name: str
    version: str

    @property
    def purl(self) -> str:
        """Its package URL."""
        return f"pkg:{_PURL[self.ecosystem]}/{self.name.replace(':', '/')}@{self.version}"


class NotChecked(Exception):
    """The advisories could not be asked, or did not answer for everything; the message is one sentence for a person."""


def locked(root: Path) -> list[Package]:
    """Every package of the locks in a checkout: Python, Rust, Java (what the pom.xml files name) and MinIO's module."""
    found = {package for path in (root / "requirements").glob("*.txt") for package in _python(path.read_text())}
    cargo = tomllib.loads((root / "collector" / "native" / "Cargo.lock").read_text())
    found |= {Package("crates.io", one["name"], one["version"]) for one in cargo["package"] if "source" in one}
    found |= {package for path in (root / "runtime" / "maven").glob("*/pom.xml") for package in _java(path)}
    found |= {
        Package("Go", *pair) for pair in re.findall(r"MINIO_MODULE=(\S+)@(\S+)", (root / "docker" / "minio" / "Dockerfile").read_text())
    }
    return sorted(found)


def _python(text: str) -> Iterator[Package]:
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", text, re.MULTILINE):
        yield Package("PyPI", re.sub(r"[-_.]+", "-", name).lower(), version)


def _java(path: Path) -> Iterator[Package]:
    for dependency in ET.parse(path).getroot().findall(".//m:dependencies/m:dependency", _POM):  # noqa: S314 - our own file
        group, artifact, version = (dependency.findtext(f"m:{name}", "", _POM) for name in ("groupId", "artifactId", "version"))
        yield Package("Maven", f"{group}:{artifact}", version)


def bill(packages: Sequence[Package]) -> dict[str, object]:
    """The list as CycloneDX 1.6 writes it."""
    parts = [{"type": "library", "name": one.name, "version": one.version, "purl": one.purl, "bom-ref": one.purl} for one in packages]
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": parts}


def advisories(packages: Sequence[Package], address: str = _ADVISORIES) -> dict[Package, list[str]]:
    """What is known against each of `packages`, those alone that something is known against. Raises NotChecked."""
    found: dict[Package, list[str]] = {}
    try:
        with httpx.Client(base_url=address, timeout=60) as client:
            for at in range(0, len(packages), _AT_ONCE):
                asked = packages[at : at + _AT_ONCE]
                queries = [{"version": one.version, "package": {"name": one.name, "ecosystem": one.ecosystem}} for one in asked]
                results = client.post("/v1/querybatch", json={"queries": queries}).raise_for_status().json()["results"]
                if len(results) != len(asked):
                    raise NotChecked(f"{address} was asked for {len(asked)} packages and answered for {len(results)}")
                for one, result in zip(asked, results, strict=True):
                    if vulnerabilities := result.get("vulns"):
                        found[one] = [each["id"] for each in vulnerabilities]
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotChecked(f"{address} could not be asked: {error or type(error).__name__}") from None
    return found


def main() -> int:
    """Exit code 0 where everything was checked and nothing is known; 1 where something is known; 2 where not everything was checked."""
    parser = argparse.ArgumentParser(prog="python -m runtime.audit", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(".runtime/sbom.json"), help="where the list goes")
    parser.add_argument("--advisories", default=_ADVISORIES, help="the address of an OSV service")
    given = parser.parse_args()
    packages = locked(Path.cwd())
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(bill(packages), indent=1) + "\n")
    print(f"{len(packages)} locked packages: {given.out}")
    try:
        found = advisories(packages, given.advisories)
    except NotChecked as problem:
        print(f"headrace: NOT CHECKED: {problem}", file=sys.stderr)
        return 2
    for package, ids in sorted(found.items()):
        print(f"{package.purl}: {', '.join(ids)}")
    print(f"{len(found)} of {len(packages)} packages have known vulnerabilities." if found else "Nothing is known against any of them.")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
