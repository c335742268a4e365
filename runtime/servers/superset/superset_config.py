"""Superset's configuration. Superset reads it at start; every value that differs between platforms comes from the environment."""

import os

APP_NAME = "Headrace"
SECRET_KEY = os.environ["SUPERSET_SECRET_KEY"]
SQLALCHEMY_DATABASE_URI = os.environ["SUPERSET_DATABASE_URL"]
# Few connections: one process with a few threads.
SQLALCHEMY_ENGINE_OPTIONS = {"pool_size": 4, "max_overflow": 8, "pool_pre_ping": True}

# The pages load nothing from elsewhere: no font service, no map tiles, and not the pixel by which their makers count visits.
TALISMAN_ENABLED = True
TALISMAN_CONFIG = {
    "content_security_policy": {
        "base-uri": ["'self'"],
        "default-src": ["'self'"],
        "img-src": ["'self'", "blob:", "data:"],
        "worker-src": ["'self'", "blob:"],
        "connect-src": ["'self'"],
        "object-src": "'none'",
        "style-src": ["'self'", "'unsafe-inline'"],
        "script-src": ["'self'", "'strict-dynamic'"],
    },
    "content_security_policy_nonce_in": ["script-src"],
    # Loopback without TLS. Behind a proxy with TLS set both to True, and ENABLE_PROXY_FIX.
    "force_https": False,
    "session_cookie_secure": False,
}
SESSION_COOKIE_SAMESITE = "Lax"
# Platforms on one machine differ in the port only, and cookies do not know ports.
SESSION_COOKIE_NAME = f"superset_{os.environ['SUPERSET_PORT']}"

# A page waits so many seconds for a chart's query: curation may have both cores meanwhile.
SUPERSET_WEBSERVER_TIMEOUT = 180

# Live dashboards ask Trino each time; nothing else here is worth a cache server.
CACHE_CONFIG = {"CACHE_TYPE": "SimpleCache", "CACHE_DEFAULT_TIMEOUT": 300}
DATA_CACHE_CONFIG = {"CACHE_TYPE": "NullCache"}
RATELIMIT_STORAGE_URI = "memory://"
LOG_LEVEL = "WARNING"
