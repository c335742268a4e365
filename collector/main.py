"""Start the collector: REST and gRPC in one process, on one event loop, or in several such. `python -m collector.main`"""

import asyncio
import contextlib
import ctypes
import signal
import socket
import sys
from pathlib import Path

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from uvicorn.loops.auto import auto_loop_factory

from collector import workers
from collector.accept import Limits
from collector.admission import Admission
from collector.intake import Intake
from collector.outbox import SHARE, Outbox
from collector.rest import ADMIN, Rest
from collector.rpc import SERVICE, Rpc
from collector.senders import Senders
from collector.server import Server
from collector.settings import CollectorSettings
from collector.spool import Spool
from collector.spool_files import SpoolFiles
from collector.v1 import collector_pb2
from headrace.observability import set_up_logging
from headrace.registry import PlanError, Registry

_BACKLOG = 2048  # connections that wait to be taken
_GRACE = 5.0  # seconds that requests get, over Kafka's deadline, when the collector is told to stop

_M_MMAP_THRESHOLD = -3  # of <malloc.h>
_OWN_PAGES = 65_536  # bytes from which on

_log = structlog.get_logger()


async def serve(settings: CollectorSettings, registry: Registry) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is in flight and return. Raises OSError where a port is taken."""
    spool = _spool(settings)
    outbox = Outbox(
        settings.kafka_bootstrap_servers, deadline=settings.deadline_seconds, max_bytes=settings.max_in_flight_bytes, spool=spool
    )
    limits = Limits(event_bytes=settings.max_event_bytes, events=settings.max_batch_events, depth=settings.max_depth)
    senders = Senders({settings.write_key: settings.source}, _id(settings), settings.pseudonym_key)
    intake = Intake(registry, limits, senders, outbox, Admission(settings.max_held_bytes))

    rests = _rests(settings, intake)
    rpc, status = _rpc(settings, intake)
    stop = asyncio.Event()
    if workers.number():
        workers.on_orphaned(stop)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    await rpc.start()
    serving = [asyncio.create_task(rest.serve([listener])) for rest, listener in rests]
    tasks = [*serving, asyncio.create_task(outbox.run()), asyncio.create_task(_tell(status, outbox))]
    if spool:
        tasks.append(asyncio.create_task(spool.run(outbox.send)))
    stopped = asyncio.create_task(stop.wait())
    _log.info("collector serves", host=settings.bind_host, rest_port=settings.rest_port, grpc_port=settings.grpc_port)
    await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)

    _log.info("collector stops")
    await status.enter_graceful_shutdown()
    for rest, _ in rests:
        rest.should_exit = True
    await asyncio.gather(rpc.stop(settings.deadline_seconds + _GRACE), asyncio.wait(serving))
    await outbox.close()
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended
    if spool:
        await spool.close()


def _id(settings: CollectorSettings) -> str:
    return f"{settings.id}-{workers.number()}" if workers.number() else settings.id


def _spool(settings: CollectorSettings) -> Spool | None:
    if not settings.spool_dir:
        return None
    try:
        files = SpoolFiles(Path(settings.spool_dir), settings.spool_max_bytes // settings.workers)
    except OSError as error:
        raise OSError(f"cannot use the spool {settings.spool_dir}: {error.strerror} (setting COLLECTOR_SPOOL_DIR)") from None
    return Spool(files, deadline=settings.deadline_seconds * (1 - SHARE), max_waiting_bytes=settings.max_in_flight_bytes)


def _rests(settings: CollectorSettings, intake: Intake) -> list[tuple[Server, socket.socket]]:
    """The server of events, and the one of the admin port where there is one."""
    served = {"COLLECTOR_REST_PORT": (settings.rest_port, ADMIN if settings.admin_port else ())}
    if settings.admin_port:
        served["COLLECTOR_ADMIN_PORT"] = (settings.admin_port, ())
    servers = []
    for setting, (port, without) in served.items():
        app = Rest(
            intake,
            max_request=settings.max_request_bytes,
            max_body=settings.max_body_bytes,
            origins=[origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()],
            without=without,
        )
        listener = workers.listen(settings.bind_host, port, setting, shared=bool(workers.number()), backlog=_BACKLOG)
        servers.append((Server(app, settings.deadline_seconds + _GRACE), listener))
    return servers


def _rpc(settings: CollectorSettings, intake: Intake) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", settings.max_request_bytes),
            ("grpc.so_reuseport", int(bool(workers.number()))),
            ("grpc.http2.lookahead_bytes", 16_384),  # what may arrive of a message that nobody reads yet
            ("grpc.http2.bdp_probe", 0),  # it would let that grow to megabytes
        ],
        maximum_concurrent_rpcs=settings.max_grpc_calls,
    )
    server.add_generic_rpc_handlers((Rpc(intake).handlers(),))
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    services = (collector_pb2.DESCRIPTOR.services_by_name["Collector"].full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(services, server)
    where = f"{settings.bind_host}:{settings.grpc_port}"
    try:
        server.add_insecure_port(where)
    except RuntimeError:
        raise OSError(f"cannot listen on {where} (settings BIND_HOST, COLLECTOR_GRPC_PORT)") from None
    return server, status


async def _tell(status: health.aio.HealthServicer, outbox: Outbox) -> None:
    """Keep gRPC's health service in step with what `/readyz` says."""
    while True:
        state = health_pb2.HealthCheckResponse.NOT_SERVING if outbox.problem else health_pb2.HealthCheckResponse.SERVING
        for name in ("", SERVICE):
            await status.set(name, state)
        await asyncio.sleep(1)


def _give_memory_back() -> None:
    """Let bodies lie in pages of their own, which go back when they are freed: glibc's heap would keep the most there ever was."""
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _OWN_PAGES)


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
        with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:  # uvloop, where it is installed
            runner.run(serve(settings, registry))
    except PlanError as error:
        sys.exit(f"collector: the tracking plan cannot be used:\n{error}")
    except OSError as error:
        sys.exit(f"collector: {error}")


if __name__ == "__main__":
    main()
