"""Serves the shop page: `python -m producers.website.main`."""

import uvicorn

from producers.website.app import shop
from producers.website.settings import ShopSettings


def main() -> None:
    """Serve until told to stop."""
    settings = ShopSettings.load()
    app = shop(settings.collector_url, settings.write_key)
    uvicorn.run(app, host=settings.host, port=settings.port, log_level=settings.log_level, access_log=False)


if __name__ == "__main__":
    main()
