"""Settings come from the environment, are typed, and an unknown one is an error at start."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn, Self

from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic_settings import BaseSettings


def read_env_file(path: Path) -> dict[str, str]:
    """The settings of an .env file, with `${NAME}` replaced. Raises SystemExit with one line where the file is not there."""
    if not path.is_file():
        sys.exit(f"headrace: no {path}: `make up` writes it at the first start")
    return {key: value or "" for key, value in dotenv_values(path).items()}


def use_env_file() -> None:
    """For commands that a person types: take from the .env file (`HEADRACE_ENV_FILE`, else `.env`) what the environment does not say.

    Does nothing where there is no such file: the settings that are missing are then named by `Settings.load`.
    """
    path = Path(os.environ.get("HEADRACE_ENV_FILE", ".env"))
    if path.is_file():
        for name, value in read_env_file(path).items():
            os.environ.setdefault(name, value)


class Settings(BaseSettings):
    """Base of each service's settings.

    Names of the environment are the fields' names in upper case; `model_config = SettingsConfigDict(env_prefix="ENRICHER_")` puts a
    prefix before them. A field that every service shares (`KAFKA_BOOTSTRAP_SERVERS`) says so with a `validation_alias`.
    """

    @classmethod
    def environment_names(cls) -> set[str]:
        """The names in the environment that this class reads."""
        return {cls._environment_name(name) for name in cls.model_fields}

    @classmethod
    def _environment_name(cls, name: str) -> str:
        """The name in the environment of a field, which pydantic calls by its own name where the value is a default."""
        field = cls.model_fields.get(name)
        alias = field.validation_alias if field else name
        return str(alias or cls.model_config.get("env_prefix", "") + name).upper()

    @classmethod
    def load(cls) -> Self:
        """The settings of this process. Ends it with one line for each problem where one is wrong or unknown."""
        prefix = cls.model_config.get("env_prefix", "")
        known = cls.environment_names()
        unknown = sorted(name for name in os.environ if prefix and name.startswith(prefix) and name not in known)
        problems = [f"{name}: no such setting; known are {', '.join(sorted(known))}" for name in unknown]
        try:
            settings = cls()
        except ValidationError as error:
            problems += [f"{problem} (see .env.example)" for problem in cls.problems(error)]
        if problems:
            _refuse(problems)
        return settings

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Self:
        """The same for commands, which go by the settings `env` of a platform: this process's own environment has no say.

        For classes whose every field has a `validation_alias`. `env` must have those without a default. Raises ValidationError.
        """
        names = {cls._environment_name(name): field for name, field in cls.model_fields.items()}
        return cls.model_validate(
            {name: env[name] if field.is_required() else env.get(name, field.default) for name, field in names.items()}
        )

    @classmethod
    def problems(cls, error: ValidationError) -> list[str]:
        """What is wrong, in one line for each setting, which begins with its name in the environment."""
        return [f"{cls._environment_name(str(e['loc'][0]))}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()]


def _refuse(problems: list[str]) -> NoReturn:
    for problem in problems:
        print(f"setting {problem}", file=sys.stderr)
    sys.exit(2)
