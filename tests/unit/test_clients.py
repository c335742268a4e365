"""How clients reach Elasticsearch and Trino: by the settings, and never with a password in the open."""

from pathlib import Path
from typing import Any

import pytest

from headrace import search, trino

HTTPS = {"ELASTICSEARCH_URL": "https://search.example:9200", "ELASTICSEARCH_USERNAME": "loader", "ELASTICSEARCH_PASSWORD": "secret"}


def _node(env: dict[str, str]) -> Any:
    client = search.client_of(env)
    return next(iter(client.transport.node_pool.all())), client


def test_without_a_password_elasticsearch_is_asked_by_nobody() -> None:
    node, client = _node({"ELASTICSEARCH_URL": "http://127.0.0.1:9200"})
    assert (node.base_url, "authorization" in client._headers) == ("http://127.0.0.1:9200", False)


def test_elasticsearch_is_told_who_asks(tmp_path: Path) -> None:
    node, client = _node(HTTPS)
    assert (node.base_url, client._headers["authorization"]) == ("https://search.example:9200", "Basic bG9hZGVyOnNlY3JldA==")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ELASTICSEARCH_URL": "http://search.example:9200"}, "is sent over https:// alone, and ELASTICSEARCH_URL is http://search"),
        ({"ELASTICSEARCH_USERNAME": ""}, "give both or none"),
        ({"ELASTICSEARCH_PASSWORD": ""}, "give both or none"),
        ({"ELASTICSEARCH_CA_FILE": "/no/such.pem"}, "there is no file /no/such.pem"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(change: dict[str, str], said: str) -> None:
    with pytest.raises(SystemExit, match=f"^headrace: ELASTICSEARCH_[A-Z_]+: .*{said}") as refused:
        search.client_of({**HTTPS, **change})
    assert "secret" not in str(refused.value)


def test_a_refusal_names_the_setting_also_where_it_is_left_out() -> None:
    with pytest.raises(SystemExit, match=r"^headrace: ELASTICSEARCH_PASSWORD: goes with ELASTICSEARCH_USERNAME"):
        search.client_of({name: value for name, value in HTTPS.items() if name != "ELASTICSEARCH_PASSWORD"})


def test_a_command_goes_by_the_platform_s_settings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELASTICSEARCH_USERNAME", "of another platform")
    _, client = _node({"ELASTICSEARCH_URL": "http://127.0.0.1:9200"})
    assert "authorization" not in client._headers


def test_trino_is_told_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/of-the-company.pem")
    env = {"TRINO_URL": "https://trino:443", "TRINO_USER": "curation", "TRINO_PASSWORD": "secret", "TRINO_CA_FILE": "/run/tls/ca.pem"}
    opened = trino.connection(env, "dbt")
    assert (opened.host, opened.port, opened.http_scheme, opened.user, opened.source) == ("trino", 443, "https", "curation", "dbt")
    assert opened.auth._password == "secret"
    session = opened._http_session
    assert session.merge_environment_settings(env["TRINO_URL"], {}, None, None, None)["verify"] == "/run/tls/ca.pem"


def test_trino_without_a_password() -> None:
    opened = trino.connection({"TRINO_URL": "http://127.0.0.1:8085", "TRINO_USER": "headrace"}, "headrace")
    assert (opened.host, opened.port, opened.http_scheme) == ("127.0.0.1", 8085, "http")
    assert (opened.auth, opened._http_session.verify) == (None, True)


def test_a_password_goes_to_trino_over_tls_alone() -> None:
    env = {"TRINO_URL": "http://trino:8080", "TRINO_USER": "curation", "TRINO_PASSWORD": "secret"}
    with pytest.raises(SystemExit, match="TRINO_PASSWORD is sent over https:// alone, and TRINO_URL is http://trino:8080"):
        trino.connection(env, "dbt")
