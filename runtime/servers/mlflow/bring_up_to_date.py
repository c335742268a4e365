"""Brings MLflow's database up to date, and makes its tables where there are none. Runs in MLflow's own environment.

`mlflow db upgrade` makes no tables where there are none, and has the password on its command line.
"""

import os

import sqlalchemy
from mlflow.store.db import utils


def main() -> None:
    """By MLFLOW_BACKEND_STORE_URI."""
    engine = utils.create_sqlalchemy_engine_with_retry(os.environ["MLFLOW_BACKEND_STORE_URI"])
    if "alembic_version" in sqlalchemy.inspect(engine).get_table_names():
        utils._upgrade_db(engine)
    else:
        utils._initialize_tables(engine)


if __name__ == "__main__":
    main()
