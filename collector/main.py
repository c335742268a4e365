"""Start the collector: REST and gRPC in one process, on one event loop, or in several such. `python -m collector.main`"""

import asyncio
import contextlib
import ctypes
import gc
import signal
import socket
import sys
from pathlib import Path

import structlog
import uvloop

from collector import fast, http2, line, metrics, workers
from collector.accept import Limits
from collector.admission import Admission
from collector.http import Bounds, Server
from collector.http2.calls import Service
from collector.http2.standard import Health, Reflection
from collector.intake import Intake
from collector.keywatch import KeyWatch
from collector.outbox import SHARE, Outbox
from collector.quota import Rates
from collector.rest import ADMIN, Rest
from collector.rpc import SERVICE, Rpc
from collector.senders import Senders
from collector.settings import CollectorSettings
from collector.spool import Spool
from collector.spool_files import SpoolFiles
from collector.tls import server_context
from collector.v1 import collector_pb2
from headrace.observability import set_up_logging
from headrace.protobuf import Messages
from headrace.registry import PlanError, Registry

_BACKLOG = 2048  # connections that wait to be taken
_GRACE = 5.0  # seconds that requests get, over Kafka's deadline, when the collector is told to stop

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of <malloc.h>
_ARENAS = 2
_OWN_PAGES = 65_536  # bytes from which on

_log = structlog.get_logger()


async def serve(settings: CollectorSettings, registry: Registry, messages: Messages) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is in flight and return. Raises OSError where a port is taken."""
    spool = _spool(settings)
    outbox = Outbox(
        settings.kafka_bootstrap_servers,
        security=settings.kafka_security,
        deadline=settings.deadline_seconds,
        max_bytes=settings.max_in_flight_bytes,
        spool=spool,
        compression=settings.compression,
        linger_ms=settings.linger_ms,
        line=line.choose(settings.native),
    )
    senders = _senders(settings)
    keys = KeyWatch(settings.keys_file, senders)
    keys.look()
    limits = Limits(event_bytes=settings.max_event_bytes, events=settings.max_batch_events, depth=settings.max_depth)
    intake = Intake(registry, limits, senders, outbox, Admission(settings.max_held_bytes), fast=_fast(settings.native, registry, limits))

    rests = _rests(settings, intake)
    rpc, rpc_listener, health = _rpc(settings, intake, messages)
    stop = asyncio.Event()
    if workers.number():
        workers.on_orphaned(stop)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    tasks = [asyncio.create_task(one) for one in (outbox.run(), keys.run())]
    if spool:
        tasks.append(asyncio.create_task(spool.run(outbox.send)))
    stopped, looked = asyncio.create_task(stop.wait()), asyncio.create_task(outbox.looked.wait())
    # Until then connections wait in the backlog: a 503 only because it has just started would be none that the sender can learn from.
    await asyncio.wait([*tasks, stopped, looked], return_when=asyncio.FIRST_COMPLETED)
    tasks.append(asyncio.create_task(_tell(health, outbox)))
    for rest, listener in rests:
        await rest.start(listener)
    await rpc.start(rpc_listener)
    native = intake.fast is not None
    _log.info("collector serves", host=settings.bind_host, rest_port=settings.rest_port, grpc_port=settings.grpc_port, native=native)
    await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)

    _log.info("collector stops")
    health.stop()
    grace = settings.deadline_seconds + _GRACE
    await asyncio.gather(rpc.stop(grace), *(rest.stop(grace) for rest, _ in rests))
    await outbox.close()
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended
    if spool:
        await spool.close()
    metrics.pour()


def _senders(settings: CollectorSettings) -> Senders:
    number = workers.number()
    return Senders(
        {settings.write_key: settings.source} if settings.write_key else {},
        f"{settings.id}-{number}" if number else settings.id,
        settings.pseudonym_key,
        origins=settings.origins,
        rates=Rates(settings.key_events_per_second, settings.key_bytes_per_second),
        share=settings.workers,
    )


def _spool(settings: CollectorSettings) -> Spool | None:
    if not settings.spool_dir:
        return None
    try:
        files = SpoolFiles(Path(settings.spool_dir), settings.spool_max_bytes // settings.workers)
    except OSError as error:
        raise OSError(f"cannot use the spool {settings.spool_dir}: {error.strerror} (setting COLLECTOR_SPOOL_DIR)") from None
    return Spool(files, deadline=settings.deadline_seconds * (1 - SHARE), max_waiting_bytes=settings.max_in_flight_bytes)


def _fast(wanted: str, registry: Registry, limits: Limits) -> fast.Fast | None:
    if wanted == "off" or (wanted == "auto" and not fast.BUILT):
        return None
    return fast.Fast(registry, limits)


def _rests(settings: CollectorSettings, intake: Intake) -> list[tuple[Server, socket.socket]]:
    """The server of events, and the one of the admin port where there is one."""
    bounds = Bounds(
        request_bytes=settings.max_request_bytes,
        connections=settings.max_connections,
        receive_seconds=settings.receive_seconds,
        idle_seconds=settings.idle_seconds,
    )
    served = {"COLLECTOR_REST_PORT": (settings.rest_port, ADMIN if settings.admin_port else ())}
    if settings.admin_port:
        served["COLLECTOR_ADMIN_PORT"] = (settings.admin_port, ())
    servers = []
    for setting, (port, without) in served.items():
        app = Rest(intake, max_body=settings.max_body_bytes, without=without)
        listener = workers.listen(settings.bind_host, port, setting, shared=bool(workers.number()), backlog=_BACKLOG)
        tls = server_context(*settings.tls) if settings.tls else None
        server = Server(app.answer, bounds, intake.admission, tls)
        server.dressed, server.at_once = app.dressed, app.at_once
        servers.append((server, listener))
    return servers


def _rpc(settings: CollectorSettings, intake: Intake, messages: Messages) -> tuple[http2.Server, socket.socket, Health]:
    bounds = http2.Bounds(
        message_bytes=settings.max_request_bytes,
        connections=settings.max_grpc_connections,
        calls=settings.max_grpc_calls,
        receive_seconds=settings.receive_seconds,
        idle_seconds=settings.idle_seconds,
    )
    messages.serve(collector_pb2.DESCRIPTOR)
    health = Health()
    methods = Rpc(intake, messages).methods | health.methods | Reflection((SERVICE,), messages).methods
    listener = workers.listen(
        settings.bind_host, settings.grpc_port, "COLLECTOR_GRPC_PORT", shared=bool(workers.number()), backlog=_BACKLOG
    )
    tls = server_context(*settings.tls, protocol="h2") if settings.tls else None
    return http2.Server(Service(methods, bounds).stream, bounds, intake.admission, tls), listener, health


async def _tell(health: Health, outbox: Outbox) -> None:
    """Keep gRPC's health service in step with what `/readyz` says, and the metrics with what was counted."""
    while True:
        metrics.pour()
        for name in ("", SERVICE):
            health.set(name, serving=not outbox.problem)
        await asyncio.sleep(1)


def _quieten_gc() -> None:
    """Nothing of a request is part of a cycle, so the garbage collector has little to find, and yet it would walk all modules each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _give_memory_back() -> None:
    """Let bodies lie in pages of their own, which go back when they are freed: glibc's heap would keep the most there ever was.

    And let threads share few heaps, of which each would keep its own.
    """
    with contextlib.suppress(AttributeError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _OWN_PAGES)
        library.mallopt(_M_ARENA_MAX, _ARENAS)


def main() -> None:
    """The process."""
    _give_memory_back()
    settings = CollectorSettings.load()
    set_up_logging("collector", settings.log_level, settings.log_format)
    if workers.number():
        structlog.contextvars.bind_contextvars(worker=workers.number())
    try:
        registry = Registry.load(settings.schemas_dir)
        if settings.workers > 1 and not workers.number():
            ports = {"COLLECTOR_REST_PORT": settings.rest_port, "COLLECTOR_GRPC_PORT": settings.grpc_port}
            if settings.admin_port:
                ports["COLLECTOR_ADMIN_PORT"] = settings.admin_port
            sys.exit(asyncio.run(workers.run(settings.workers, settings.bind_host, ports)))
        messages = Messages.load(settings.schemas_dir, registry.schemas)
        _quieten_gc()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, registry, messages))
    except PlanError as error:
        sys.exit(f"collector: the tracking plan cannot be used:\n{error}")
    except (OSError, fast.NotBuilt, line.NotThere) as error:
        sys.exit(f"collector: {error}")


if __name__ == "__main__":
    main()
