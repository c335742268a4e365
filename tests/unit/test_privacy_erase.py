"""Where a person is looked for, in which order rows go, and what is recorded of it."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.__main__ import app
from cli.privacy.commands import _kept
from cli.privacy.person import AUDIT, EMPTIED, Person, audit_rows, conditions, documents, literal, unnamed

EVENT = frozenset({"id", "source", "type", "subject", "time", "received_at", "data"})
TABLES = {
    "lake.bronze.dead_letters": frozenset({"dead_letter_id", "source", "subject", "payload"}),
    "lake.bronze.events": EVENT,
    "lake.gold.dim_date": frozenset({"date_day"}),
    "lake.gold.fact_activity": frozenset({"source", "customer_id", "visitor_key"}),
    "lake.gold.fact_prediction": frozenset({"source", "event_id", "customer_id", "customer_key"}),
    "lake.gold.fact_session": frozenset({"source", "customer_id", "visitor_key"}),
    "lake.gold.mart_variants": frozenset({"model", "model_version", "variant"}),
    "lake.gold.prediction_truth": frozenset({"source", "event_id", "customer_id", "customer_key"}),
    "lake.gold.erasures": frozenset({"subject_hash", "source"}),
    "lake.silver.dead_letters": frozenset({"dead_letter_id", "source", "subject", "payload"}),
    "lake.silver.events": EVENT - {"subject", "data"},
    "lake.silver.purchase": EVENT | {"data_json"},
    "lake.silver.quarantine": EVENT | {"reason"},
}
ANN = Person({"ann": "0af1"})
OF_SHOP = Person({"ann": "0af1"}, "shop")


def test_rows_go_from_what_they_are_found_by_last() -> None:
    assert list(conditions(ANN, TABLES)) == [
        "lake.silver.dead_letters",
        "lake.silver.purchase",
        "lake.silver.quarantine",
        "lake.gold.fact_session",
        "lake.gold.fact_activity",
        "lake.gold.fact_prediction",
        "lake.gold.prediction_truth",
        "lake.silver.events",
        "lake.bronze.dead_letters",
        "lake.bronze.events",
    ]


def test_a_person_is_found_by_name_and_by_hash() -> None:
    found = conditions(ANN, TABLES)
    assert found["lake.silver.purchase"] == "subject IN ('ann', '0af1')"
    assert found["lake.gold.fact_activity"] == "customer_id IN ('ann', '0af1')"
    assert found["lake.gold.fact_session"] == (
        "customer_id IN ('ann', '0af1') OR visitor_key IN"
        ' (SELECT visitor_key FROM "lake"."gold"."fact_activity" WHERE customer_id IN (\'ann\', \'0af1\'))'
    )
    assert conditions(OF_SHOP, TABLES)["lake.silver.purchase"] == "subject IN ('ann', '0af1') AND source = 'shop'"


def test_identities_are_those_of_the_persons_own_sendings() -> None:
    found = conditions(ANN, TABLES)["lake.silver.events"]
    assert found.startswith("(source, id, type, time, received_at) IN (SELECT source, id, type, time, received_at FROM ")
    assert found.endswith(""" FROM "lake"."bronze"."events" WHERE subject IN ('ann', '0af1'))""")


def test_a_lake_without_silver_and_gold_has_bronze() -> None:
    only = {name: columns for name, columns in TABLES.items() if ".bronze." in name}
    assert list(conditions(ANN, only)) == ["lake.bronze.dead_letters", "lake.bronze.events"]
    assert conditions(ANN, {}) == {}


def test_a_dead_letter_without_a_subject_is_found_by_its_payload() -> None:
    either = conditions(OF_SHOP, TABLES)["lake.bronze.dead_letters"]
    assert either.startswith("(subject IN ('ann', '0af1') AND source = 'shop') OR (subject IS NULL AND (strpos(")
    assert either.endswith("(source IS NULL OR source = 'shop'))")
    both = unnamed(Person({'Zoë "Z" O\'Hara': "h"}))
    assert """'"Zo\\u00eb \\"Z\\" O''Hara"'""" in both
    assert """'"Zoë \\"Z\\" O''Hara"'""" in both


def test_a_name_cannot_leave_its_quotes() -> None:
    assert literal("x' OR ''='") == "'x'' OR ''''='''"


@pytest.mark.parametrize(
    ("person", "letters", "expected"),
    [
        (ANN, [], [{"bool": {"filter": [{"terms": {"subject": ["ann", "0af1"]}}]}}]),
        (
            OF_SHOP,
            ["d1"],
            [
                {"bool": {"filter": [{"terms": {"subject": ["ann", "0af1"]}}, {"term": {"source": "shop"}}]}},
                {"terms": {"dead_letter_id": ["d1"]}},
            ],
        ),
    ],
)
def test_documents_are_asked_for_as_rows_are(person: Person, letters: list[str], expected: list[dict[str, Any]]) -> None:
    assert documents(person, letters) == {"bool": {"should": expected, "minimum_should_match": 1}}


def test_the_record_does_not_name_the_person() -> None:
    statement = audit_rows(
        Person({"ann": "0af1", "bob": "77"}, "shop"), "e1", "me@here", "done", {"lake.silver.purchase": 2, "events_all": 1}
    )
    assert statement.startswith(f'INSERT INTO "lake"."gold"."{AUDIT.rpartition(".")[2]}" VALUES ')
    assert "('e1', current_timestamp, 'me@here', '0af1', 'shop', 'done', 3, '" in statement
    assert "'77', 'shop'" in statement
    assert "ann" not in statement
    assert "bob" not in statement
    assert json.dumps({"lake.silver.purchase": 2, "events_all": 1}) in statement


def test_sums_of_nothing_are_of_tables_that_there_are() -> None:
    assert {of for of, _ in EMPTIED.values()} == {"lake.gold.fact_purchase", "lake.gold.fact_session", "lake.gold.prediction_truth"}
    assert all("{of}" in condition for _, condition in EMPTIED.values())


def test_kafka_keeps_a_message_until_the_file_that_holds_it_goes() -> None:
    assert _kept({"retention.ms": "604800000", "segment.ms": "604800000"}).startswith("keeps its messages for 14 days at most")
    assert _kept({"retention.ms": "-1", "segment.ms": "1"}).startswith("keeps its messages for ever")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--subject", ""], "headrace: --subject must not be empty"),
        (["--subject", "ann", "--orphans", "soon"], "headrace: --orphans 'soon' is not an age such as 24h or 2d"),
    ],
)
def test_a_wrong_option_is_one_line(arguments: list[str], sentence: str) -> None:
    done = CliRunner().invoke(app, ["privacy", "erase", *arguments])
    assert (done.exit_code, done.stderr) == (1, f"{sentence}\n")
