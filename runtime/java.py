"""The JDK that Kafka, Elasticsearch and Spark run on: Debian's 17, whatever `java` is on PATH."""

from pathlib import Path

from runtime.errors import RuntimeFailure

PACKAGE = "openjdk-17-jdk-headless"
_WHERE = ("/usr/lib/jvm/java-17-openjdk-*", "/usr/lib/jvm/java-17*", "/usr/lib/jvm/openjdk-17*")


def home() -> Path:
    """JAVA_HOME of a JDK 17. Raises RuntimeFailure where there is none."""
    for pattern in _WHERE:
        for folder in sorted(Path("/").glob(pattern.lstrip("/"))):
            if (folder / "bin" / "javac").is_file():
                return folder
    raise RuntimeFailure(f"no JDK 17 under /usr/lib/jvm: install the Debian package {PACKAGE}")


def binary(name: str) -> Path:
    """A program of that JDK, such as `java` or `javac`. Raises RuntimeFailure."""
    return home() / "bin" / name
