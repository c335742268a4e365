"""Start the collector: REST and gRPC in one process, on one event loop. `python -m collector.main`"""

import asyncio
import gc
import signal
import socket
import sys

import grpc
import structlog
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from collector import fast
from collector.accept import Limits
from collector.http import Bounds, Server
from collector.intake import Intake
from collector.outbox import Outbox
from collector.rest import Rest
from collector.rpc import SERVICE, Rpc
from collector.senders import Senders
from collector.settings import CollectorSettings
from collector.v1 import collector_pb2
from collector.v1.collector_pb2_grpc import add_CollectorServicer_to_server
from headrace.observability import set_up_logging
from headrace.registry import PlanError, Registry

_BACKLOG = 2048  # connections that wait to be taken
_GRACE = 5.0  # seconds that requests get, over Kafka's deadline, when the collector is told to stop

_log = structlog.get_logger()


async def serve(settings: CollectorSettings, registry: Registry) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is in flight and return. Raises OSError where a port is taken."""
    outbox = Outbox(settings.kafka_bootstrap_servers, deadline=settings.deadline_seconds, max_bytes=settings.max_in_flight_bytes)
    limits = Limits(event_bytes=settings.max_event_bytes, events=settings.max_batch_events, depth=settings.max_depth)
    senders = Senders({settings.write_key: settings.source}, settings.id, settings.pseudonym_key)
    intake = Intake(registry, limits, senders, outbox, _fast(settings.native, registry, limits))

    rest, listener = _rest(settings, intake)
    rpc, status = _rpc(settings, intake)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    await rest.start(listener)
    await rpc.start()
    tasks = [asyncio.create_task(outbox.run()), asyncio.create_task(_tell(status, outbox))]
    stopped = asyncio.create_task(stop.wait())
    _log.info(
        "collector serves",
        host=settings.bind_host,
        rest_port=settings.rest_port,
        grpc_port=settings.grpc_port,
        native=intake.fast is not None,
    )
    await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)

    _log.info("collector stops")
    await status.enter_graceful_shutdown()
    grace = settings.deadline_seconds + _GRACE
    await asyncio.gather(rpc.stop(grace), rest.stop(grace))
    await outbox.close()
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended


def _fast(wanted: str, registry: Registry, limits: Limits) -> fast.Fast | None:
    if wanted == "off" or (wanted == "auto" and not fast.BUILT):
        return None
    return fast.Fast(registry, limits)


def _rest(settings: CollectorSettings, intake: Intake) -> tuple[Server, socket.socket]:
    app = Rest(
        intake,
        max_body=settings.max_body_bytes,
        origins=[origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()],
    )
    try:
        listener = socket.create_server((settings.bind_host, settings.rest_port), backlog=_BACKLOG)
    except OSError as error:
        where = f"{settings.bind_host}:{settings.rest_port}"
        raise OSError(f"cannot listen on {where}: {error.strerror} (settings BIND_HOST, COLLECTOR_REST_PORT)") from None
    bounds = Bounds(
        request_bytes=settings.max_request_bytes,
        unanswered_bytes=settings.max_unanswered_bytes,
        connections=settings.max_connections,
        receive_seconds=settings.receive_seconds,
        idle_seconds=settings.idle_seconds,
    )
    return Server(app.answer, bounds), listener


def _rpc(settings: CollectorSettings, intake: Intake) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", settings.max_body_bytes), ("grpc.so_reuseport", 0)])
    add_CollectorServicer_to_server(Rpc(intake), server)
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


def _quieten_gc() -> None:
    """Nothing of a request is part of a cycle, so the garbage collector has little to find, and yet it would walk all modules each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def main() -> None:
    """The process."""
    settings = CollectorSettings.load()
    set_up_logging("collector", settings.log_level, settings.log_format)
    try:
        registry = Registry.load(settings.schemas_dir)
        _quieten_gc()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, registry))
    except PlanError as error:
        sys.exit(f"collector: the tracking plan cannot be used:\n{error}")
    except (OSError, fast.NotBuilt) as error:
        sys.exit(f"collector: {error}")


if __name__ == "__main__":
    main()
