"""What every consumer's `main.py` needs around its runner: settings, clients, signals, and how the process ends."""

import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from pydantic import Field

from headrace import dead_letter, event, observability
from headrace.batch import TooManyRejects
from headrace.kafka import SERVICES_THAT_REFUSE, Config, KafkaSettings, consumer_config, producer_config
from headrace.progress import OutcomeUnknown
from headrace.registry import PlanError

_REPORT_EVERY_SECONDS = 10.0
_STOP_SECONDS = 20.0  # less than the supervisor's patience (30 s)


class ConsumerSettings(KafkaSettings):
    """What all consumers share."""

    bind_host: str = Field(validation_alias="BIND_HOST", default="127.0.0.1")
    schemas_dir: Path = Field(validation_alias="SCHEMAS_DIR", default=Path("schemas"))
    log_level: str = Field(validation_alias="LOG_LEVEL", default="info")
    log_format: str = Field(validation_alias="LOG_FORMAT", default="json")
    metrics_port: int
    # Name of this copy of the service, one for each that runs at the same time. A restarted copy takes up its partitions at once.
    instance: str = "0"
    group: str
    # Above this share of rejected messages (of at least 1,000 within a minute) the service stops; 1 turns that off.
    max_reject_share: float = Field(default=0.9, ge=0, le=1)


@dataclass(frozen=True)
class Topics:
    """The topics of one platform. Tests give theirs a prefix, so as not to meet a platform that runs."""

    prefix: str = ""

    @property
    def raw(self) -> str:
        """Events as the collector wrote them."""
        return self.prefix + event.RAW_TOPIC

    @property
    def enriched(self) -> str:
        """Events as the enricher wrote them."""
        return self.prefix + event.ENRICHED_TOPIC

    def dead_letter(self, service: str) -> str:
        """What `service` refused."""
        return self.prefix + dead_letter.TOPIC_PREFIX + service

    @property
    def to_load(self) -> list[str]:
        """What both loaders read: enriched events and all dead letters."""
        return [self.enriched, *map(self.dead_letter, SERVICES_THAT_REFUSE)]


PLATFORM = Topics()


def consumer(settings: ConsumerSettings, **overrides: str | int | float | bool) -> Consumer:
    """A consumer of the group, known to it by its instance name, so that a restart is no rebalance."""
    config = consumer_config(
        settings.kafka_bootstrap_servers,
        settings.group,
        security=settings.kafka_security,
        group_instance_id=f"{settings.group}-{settings.instance}",
        session_timeout_ms=10_000,
        **overrides,
    )
    return Consumer(_reported(config), logger=_quiet())


def producer(settings: ConsumerSettings, **overrides: str | int | float | bool) -> Producer:
    """An idempotent producer; transactional where `transactional_id` is given."""
    config = producer_config(settings.kafka_bootstrap_servers, security=settings.kafka_security, **overrides)
    return Producer(_reported(config), logger=_quiet())


def _reported(config: Config) -> dict[str, object]:
    """`config` with Kafka's own errors going to our log, each kind at most once in ten seconds."""
    log, last = structlog.get_logger(), dict[str, float]()

    def report(error: KafkaError) -> None:
        now = time.monotonic()
        if now - last.get(error.name(), -_REPORT_EVERY_SECONDS) >= _REPORT_EVERY_SECONDS:
            last[error.name()] = now
            log.warning("kafka says", error=error.str(), code=error.name())

    return {**config, "error_cb": report}


def _quiet() -> logging.Logger:
    """librdkafka's own log lines repeat, in a form of their own, what `error_cb` is told."""
    logger = logging.getLogger("librdkafka")
    logger.setLevel(logging.CRITICAL + 1)
    return logger


def run(name: str, settings: ConsumerSettings, build: Callable[[threading.Event], Callable[[], None]]) -> None:
    """Run a service until SIGTERM or SIGINT (exit code 0) or until it cannot go on (exit code 1 and one line that says why).

    `build` makes the clients and returns what to run; it gets the event that is set once the process is to stop.
    """
    observability.set_up_logging(name, settings.log_level, settings.log_format)
    log, stop = structlog.get_logger(), threading.Event()
    _stop_when_told(stop)
    try:
        observability.serve_metrics(settings.bind_host, settings.metrics_port)
        serve = build(stop)
        spare_the_collector()
        log.info("started", group=settings.group, instance=settings.instance)
        serve()
    except PlanError as error:
        _end(log, "the tracking plan cannot be used", "; ".join(error.problems))
    except TooManyRejects as error:
        _end(log, "too many rejects", str(error))
    except OutcomeUnknown as error:
        told_to_stop = stop.is_set()  # then it is as with any batch that is not done by the end: the next start settles it
        log.log(logging.WARNING if told_to_stop else logging.ERROR, "Kafka ended this process's part", why=str(error))
        os._exit(0 if told_to_stop else 1)  # at once: a call that does not return would keep the interpreter from ending
    except KafkaException as error:
        _end(log, "Kafka ended this process's part", str(error))
    except OSError as error:
        _end(log, "cannot start", f"{error.strerror or error} (metrics on {settings.bind_host}:{settings.metrics_port})")
    except Exception:
        # A defect, or a message that makes one: nothing of the batch is committed, and whoever starts us again finds which it was.
        log.exception("crashed")
        sys.exit(1)
    log.info("stopped")


def spare_the_collector() -> None:
    """Let Python not search for cycles, again and again, in what stays for good and in batches, which have none."""
    gc.freeze()
    gc.set_threshold(100_000)


def _stop_when_told(stop: threading.Event) -> None:
    """Listen for signals on a thread: the main one may be in a call that does not return while something is away, and runs no handler then.

    What has not ended in time has nothing committed: it may as well be cut.
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)  # written to at once, whatever the main thread does
    for wanted in (signal.SIGTERM, signal.SIGINT):
        signal.signal(wanted, lambda *_: None)

    def listen() -> None:
        os.read(told, 1)
        stop.set()
        time.sleep(_STOP_SECONDS)
        structlog.get_logger().warning("stopped in the middle of a batch, which the next start reads again", waited_seconds=_STOP_SECONDS)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()


def _end(log: structlog.typing.FilteringBoundLogger, what: str, why: str) -> None:
    log.error(what, why=why)
    sys.exit(1)
