"""Superset's configuration. Superset reads it at start; every value that differs between platforms comes from the environment."""

import os
from collections.abc import Iterator
from typing import Any

from superset.common.chart_data import ChartDataResultType
from superset.errors import ErrorLevel, SupersetError, SupersetErrorType
from superset.exceptions import SupersetSecurityException
from superset.security import SupersetSecurityManager

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


class LookingOnly(SupersetSecurityManager):  # type: ignore[misc]
    """Superset's own, which would let everybody who may see a chart ask other things of its data: whose one role is Viewer may not."""

    def raise_for_access(self, *args: Any, **kwargs: Any) -> None:
        """Also refuse a viewer's question that is not the one of a chart as it was saved, or of a filter for its values."""
        context = kwargs.get("query_context")
        if context is not None and [role.name for role in self.get_user_roles()] == ["Viewer"] and not _as_saved(context):
            message = "Viewers see charts as they were saved, and cannot ask other things of their data"
            raise SupersetSecurityException(SupersetError(message, SupersetErrorType.DASHBOARD_SECURITY_ACCESS_ERROR, ErrorLevel.WARNING))
        super().raise_for_access(*args, **kwargs)


def _as_saved(context: Any) -> bool:
    form, queries = context.form_data or {}, context.queries
    if {context.result_type, *(query.result_type for query in queries)} - {ChartDataResultType.FULL, None}:  # such as single rows
        return False
    if any(query.extras.get(name) for query in queries for name in ("where", "having")):  # SQL of one's own
        return False
    others = [name for query in queries for name in _beside(query)]
    if form.get("type") == "NATIVE_FILTER":
        asked = [name for query in queries for name in query.columns]
        return not any(query.metrics for query in queries) and all(isinstance(name, str) for name in asked + others)
    if context.slice_ is None or context.slice_.datasource != context.datasource:
        return False
    params = context.slice_.params_dict
    saved = {params.get("metric"), params.get("x_axis"), *params.get("metrics", []), *params.get("all_columns", [])}
    groups = params.get("groupby") or []
    saved |= {groups} if isinstance(groups, str) else set(groups)
    asked = [_axis(name) for query in queries for name in (*query.columns, *(query.metrics or []))]
    return all(isinstance(name, str) for name in asked + others) and set(asked) <= saved


def _beside(query: Any) -> Iterator[Any]:
    """What a query filters and sorts by, each a column's or metric's name unless it is SQL of one's own."""
    yield from (_axis(condition["col"]) for condition in query.filter)
    yield from (_axis(name) for name, _ in query.orderby or [])
    yield from (_axis(name) for name in query.series_columns or [])
    if query.series_limit_metric:
        yield query.series_limit_metric


def _axis(name: Any) -> Any:
    """The column on a chart's x axis comes with its grain of time."""
    if isinstance(name, dict) and name.get("columnType") == "BASE_AXIS":
        return name.get("sqlExpression")
    return name


CUSTOM_SECURITY_MANAGER = LookingOnly
