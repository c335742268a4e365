"""Brings Superset's database up to date: tables, roles, administrator and viewer. Runs in Superset's own environment, in one process."""

import os
from typing import Any

from superset.app import create_app

# What the role Viewer may: open dashboards, and use their filters. (What a chart may be asked: superset_config.py.) No SQL Lab, no
# exploring, no editing, no export.
LOOK = {
    ("can_read", "Dashboard"),
    ("can_read", "Chart"),
    ("can_dashboard", "Superset"),
    ("can_read", "DashboardPermalinkRestApi"),
    ("can_read", "DashboardFilterStateRestApi"),
    ("can_write", "DashboardFilterStateRestApi"),
    ("can_time_range", "Api"),
    ("can_read", "CssTemplate"),
    ("can_read", "Theme"),
    ("can_read", "EmbeddedDashboard"),
    ("can_read", "CurrentUserRestApi"),
    ("can_read", "SecurityRestApi"),  # the token that a filter's state is sent with
    ("can_get", "Datasource"),
    ("can_log", "Superset"),
    ("can_recent_activity", "Log"),
    ("menu_access", "Dashboards"),
    ("menu_access", "Home"),
    ("all_datasource_access", "all_datasource_access"),
}


def main() -> None:
    """Migrate, make the roles, and give the users the passwords of the settings."""
    app = create_app()
    with app.app_context():
        from flask_migrate import upgrade
        from superset import appbuilder, security_manager

        upgrade()
        appbuilder.add_permissions(update_perms=True)
        security_manager.sync_role_definitions()
        found = {each: security_manager.find_permission_view_menu(*each) for each in LOOK}
        if missing := [each for each, there in found.items() if there is None]:
            raise SystemExit(f"this Superset does not know the permissions {missing}")
        security_manager.add_role("Viewer").permissions = list(found.values())
        security_manager.session.commit()
        _user(security_manager, os.environ["SUPERSET_ADMIN_USER"], os.environ["SUPERSET_ADMIN_PASSWORD"], "Admin")
        _user(security_manager, os.environ["SUPERSET_VIEWER_USER"], os.environ["SUPERSET_VIEWER_PASSWORD"], "Viewer")


def _user(security_manager: Any, name: str, password: str, role: str) -> None:
    """Make the user, with one role, or give the one that is there the password."""
    user = security_manager.find_user(username=name)
    if user is None:
        roles = security_manager.find_role(role)
        user = security_manager.add_user(name, "Headrace", role, f"{name}@headrace.invalid", roles, password=password)
    else:
        security_manager.reset_password(user.id, password)
    if not user:
        raise SystemExit(f"the user {name} could not be made")


if __name__ == "__main__":
    main()
