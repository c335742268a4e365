"""The enrichment API as FastAPI serves it, without the way round it: what `benchmarks.serving` compares with."""

from fastapi import FastAPI

from enrichment_api import app, main

if __name__ == "__main__":
    app._Api.__call__ = FastAPI.__call__  # type: ignore[method-assign]
    main.main()
