"""The supervisor of one platform: its configuration, and talking to it."""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from runtime.component import Place, Program
from runtime.errors import RuntimeFailure
from runtime.users import as_user

MARK = "HEADRACE_STATE_DIR"  # in the environment of every process of a platform
_SOCKET_PATH_LIMIT = 100  # the kernel's is 107 bytes, and supervisor adds the process id for a moment
_LOG_BYTES, _LOG_COPIES = "20MB", 3
# A service that ends because something it needs is down is started again for ever; the wait grows by a second each time.
_START_RETRIES = 1_000_000
# What the processes get of the caller's environment. All else comes from .env: an exported setting must not change one platform by stealth.
_INHERITED: tuple[str, ...] = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
)
_INHERITED += (
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)


@dataclass(frozen=True)
class ProcessState:
    """What the supervisor knows of a program."""

    name: str
    state: str  # RUNNING, STARTING, STOPPED, BACKOFF, EXITED, FATAL…
    pid: int
    started_at: float
    exit_code: int


def run_folder(place: Place) -> Path:
    """Where the socket is: a short path, since the kernel takes no long one."""
    folder = place.state / "run"
    if len(os.fsencode(folder / "supervisor.sock")) > _SOCKET_PATH_LIMIT:
        digest = hashlib.sha256(os.fsencode(place.state)).hexdigest()[:12]
        folder = Path(tempfile.gettempdir()) / f"headrace-{os.geteuid()}-{digest}"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def log_path(place: Place, name: str) -> Path:
    """The log of a program."""
    return place.state / "log" / f"{name}.log"


def configuration(place: Place, programs: Sequence[Program]) -> str:
    """The supervisor's configuration file. `%` is its escape character."""
    run = run_folder(place)
    sections: dict[str, Mapping[str, object]] = {
        "unix_http_server": {"file": run / "supervisor.sock", "chmod": "0700"},
        "supervisord": {
            "logfile": log_path(place, "supervisor"),
            "logfile_maxbytes": _LOG_BYTES,
            "logfile_backups": _LOG_COPIES,
            "pidfile": run / "supervisor.pid",
            "childlogdir": place.state / "log",
        },
        "rpcinterface:supervisor": {"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"},
        **{f"program:{program.name}": _section(place, program) for program in programs},
    }
    return "\n".join(f"[{name}]\n{_lines(keys)}" for name, keys in sections.items())


def _lines(keys: Mapping[str, object]) -> str:
    return "".join(f"{key} = {str(value).replace('%', '%%')}\n" for key, value in keys.items())


def _section(place: Place, program: Program) -> dict[str, object]:
    return {
        "command": f"/bin/sh {shlex.quote(str(_script_path(place, program.name)))}",
        "autostart": "false",
        "autorestart": "unexpected" if program.ends else "true",
        "startsecs": 0 if program.ends else 1,
        "startretries": _START_RETRIES,
        "stopsignal": program.stop_signal,
        "stopwaitsecs": int(program.stop_within),
        "stopasgroup": "true",
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": log_path(place, program.name),
        "stdout_logfile_maxbytes": _LOG_BYTES,
        "stdout_logfile_backups": _LOG_COPIES,
    }


def script(place: Place, program: Program, configured: str) -> str:
    """The shell script that a program is started by: everything that it is started with stands in it, so it says when a restart is due.

    `configured` is a sum over its configuration files.
    """
    # SPT_NOENV: a process that changes its title (Airflow's do) leaves its environment, and so the mark, readable.
    environment = {**place.env, **program.environment, MARK: str(place.state), "PYTHONUNBUFFERED": "1", "SPT_NOENV": "1"}
    exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in sorted(environment.items()))
    command = shlex.join(as_user(program.required_user, [str(part) for part in program.command]))
    return f"# configuration {configured}\n{exports}cd {shlex.quote(str(program.directory or place.root))} && exec {command}\n"


def _script_path(place: Place, name: str) -> Path:
    return place.state / "run" / "programs" / f"{name}.sh"


def stored_script(place: Place, name: str) -> str | None:
    """What a program was last started by."""
    path = _script_path(place, name)
    return path.read_bytes().decode() if path.is_file() else None


def store_script(place: Place, name: str, text: str) -> None:
    """Write the script of a program. It holds secrets: only we may read it."""
    path = _script_path(place, name)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    path.write_bytes(text.encode())


def clean_environment() -> dict[str, str]:
    """What of our own environment processes of the platform may see."""
    return {key: value for key, value in os.environ.items() if key in _INHERITED or key.startswith("LC_")}


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


class Supervisor:
    """A running supervisor, spoken to over its socket."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._socket = run_folder(place) / "supervisor.sock"

    @property
    def _proxy(self) -> Any:
        # A new connection for each call: the transport cannot be used again after an error, nor by two threads.
        return xmlrpc.client.ServerProxy("http://127.0.0.1", SupervisorTransport(None, None, f"unix://{self._socket}"))

    def running(self) -> bool:
        """Whether it is there."""
        try:
            self._proxy.supervisor.getState()
        except (OSError, xmlrpc.client.Error):
            return False
        return True

    def ensure(self, programs: Sequence[Program]) -> None:
        """Start it, or tell a running one of programs that are new, changed or gone. Raises RuntimeFailure where it does not start."""
        place = self._place
        (place.state / "log").mkdir(parents=True, exist_ok=True)
        path = place.state / "run" / "supervisord.conf"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(configuration(place, programs))
        if not self.running():
            self._start(path)
            return
        [(added, changed, removed)] = self._proxy.supervisor.reloadConfig()
        for name in [*changed, *removed]:
            self.stop(name)
            self._proxy.supervisor.removeProcessGroup(name)
        for name in [*added, *changed]:
            self._proxy.supervisor.addProcessGroup(name)

    def _start(self, path: Path) -> None:
        (self._socket).unlink(missing_ok=True)
        command = [sys.executable, "-m", "supervisor.supervisord", "--configuration", str(path)]
        environment = {**clean_environment(), MARK: str(self._place.state)}
        done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 15
        while done.returncode == 0 and time.monotonic() < deadline:
            if self.running():
                return
            time.sleep(0.05)
        said, log = (done.stderr or done.stdout).strip()[-500:], log_path(self._place, "supervisor")
        raise RuntimeFailure(f"the supervisor did not start: {said} (log: {log})")

    def states(self) -> dict[str, ProcessState]:
        """Every program it knows, by name; empty where it is not running."""
        try:
            infos = self._proxy.supervisor.getAllProcessInfo()
        except (OSError, xmlrpc.client.Error):
            return {}
        return {i["name"]: ProcessState(i["name"], i["statename"], i["pid"], float(i["start"]), i["exitstatus"]) for i in infos}

    def start(self, name: str) -> None:
        """Ask for a program to be started, without waiting. One that runs already stays as it is."""
        try:
            self._proxy.supervisor.startProcess(name, False)
        except xmlrpc.client.Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                raise RuntimeFailure(f"starting {name} failed: {fault.faultString}") from None

    def stop(self, name: str, wait: bool = True) -> None:
        """End a program; nothing where it does not run."""
        try:
            self._proxy.supervisor.stopProcess(name, wait)
        except xmlrpc.client.Fault as fault:
            if "NOT_RUNNING" not in fault.faultString:
                raise RuntimeFailure(f"stopping {name} failed: {fault.faultString}") from None

    def shutdown(self) -> None:
        """End it with all that still runs, and wait until it is gone."""
        try:
            process = psutil.Process(int(str(self._proxy.supervisor.getPID())))
            self._proxy.supervisor.shutdown()
        except (OSError, xmlrpc.client.Error, psutil.Error):
            return
        deadline = time.monotonic() + 60
        while _lives(process) and time.monotonic() < deadline:  # it stops to answer some time before it is gone
            time.sleep(0.1)
        if run_folder(self._place).parent == Path(tempfile.gettempdir()):
            shutil.rmtree(run_folder(self._place), ignore_errors=True)
