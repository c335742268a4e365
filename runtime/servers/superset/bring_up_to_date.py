"""Brings Superset's database up to date: tables, roles and the administrator. Runs in Superset's own environment, in one process."""

import os

from superset.app import create_app


def main() -> None:
    """Migrate, make the roles, and give the administrator the password of the settings."""
    app = create_app()
    with app.app_context():
        from flask_migrate import upgrade
        from superset import appbuilder, security_manager

        upgrade()
        appbuilder.add_permissions(update_perms=True)
        security_manager.sync_role_definitions()
        name, password = os.environ["SUPERSET_ADMIN_USER"], os.environ["SUPERSET_ADMIN_PASSWORD"]
        user = security_manager.find_user(username=name)
        if user is None:
            role = security_manager.find_role("Admin")
            user = security_manager.add_user(name, "Headrace", "Admin", f"{name}@headrace.invalid", role, password=password)
        else:
            security_manager.reset_password(user.id, password)
        if not user:
            raise SystemExit(f"the user {name} could not be made")


if __name__ == "__main__":
    main()
