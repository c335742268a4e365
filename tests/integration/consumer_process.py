"""One consumer as a process of its own, on the topics (and tables) of one test: `consumer_process.py SERVICE PREFIX NAMESPACE`."""

import sys


def main(name: str, prefix: str, namespace: str) -> None:
    """Runs until SIGTERM, as the service itself does. The settings come from the environment."""
    from headrace import service

    topics = service.Topics(prefix)
    if name == "enricher":
        from enricher import main as enricher
        from enricher.settings import EnricherSettings

        settings = EnricherSettings.load()
        service.run(name, settings, lambda stop: enricher.build(settings, stop, topics))
    elif name == "realtime-loader":
        from loaders.realtime import main as realtime
        from loaders.realtime.settings import RealtimeLoaderSettings

        of_realtime = RealtimeLoaderSettings.load()
        service.run(name, of_realtime, lambda stop: realtime.build(of_realtime, stop, topics))
    else:
        from loaders.batch import main as batch
        from loaders.batch.settings import BatchLoaderSettings

        of_batch = BatchLoaderSettings.load()
        service.run(name, of_batch, lambda stop: batch.build(of_batch, stop, topics, namespace))


if __name__ == "__main__":
    main(*sys.argv[1:])
