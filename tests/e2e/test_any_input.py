"""Whatever the collector accepts passes every station behind it: what docs/decisions/0002 lets in, as each store holds it in the end."""

import json
import os
import uuid
from typing import Any

import httpx
import pytest
from elasticsearch import Elasticsearch

from cli.airflow import run_dag
from tests.e2e.conftest import eventually, rows

pytestmark = pytest.mark.usefixtures("platform")

URL = '"url":"http://x/"'
# JSON text of data of a page_view: members that the schema knows, and others that it lets pass.
DATA = {
    "NUL in a column": rf'{{{URL},"title":"a\u0000b"}}',
    "NUL elsewhere": rf'{{{URL},"extra":["\u0000",{{"a":"\u0000"}}]}}',
    "control characters": rf'{{{URL},"title":"\u0001\u001f\u007f\u0085\u2028\ufffe\uffff","extra":"\b\f\n\r\t"}}',
    "beyond the BMP": f'{{{URL},"title":"🚀\\ud83d\\ude80 größe ﷺ \\u202ertl","🚀":{{"größe":"\\u00df"}}}}',
    "integers beyond 64 bits": f'{{{URL},"extra":[9223372036854775808,-9223372036854775809,123456789012345678901234567890]}}',
    "doubles at their limits": f'{{{URL},"extra":[1.7976931348623157e308,-5e-324,0.1000000000000000055511151231257827,-0.0,1E+2]}}',
    "as deep as allowed": f'{{{URL},"extra":{"[" * 31}{"]" * 31}}}',
    "odd keys": f'{{{URL},"a.b":1,"c d":{{"-":2}},"$":3,"__proto__":4,"id":5,"data":6,"kafka_offset":7,"_id":8,"\\u0000":9,"a\\tb":10}}',
    "one field, many types": f'{{{URL},"extra":"text"}}',
    "one field, many types again": f'{{{URL},"extra":{{"a":1}}}}',
    "white space": f'{{ \n\t{URL} ,\r\n"title" : "x" }}',
    "a long string": f'{{{URL},"extra":"{"x" * 31_000}"}}',
    "many members": f"{{{URL},{','.join(f'{chr(34)}k{n}{chr(34)}:{n}' for n in range(1500))}}}",
    "empty": f'{{{URL},"title":"","extra":{{}},"extra2":[],"extra3":null}}',
}
ATTRIBUTES: dict[str, dict[str, str]] = {
    "first year": {"time": "0001-01-01T00:00:00Z"},
    "before the Gregorian calendar": {"time": "1500-02-28T23:59:59.123456Z"},
    "last moment": {"time": "9999-12-31T23:59:59.999999Z"},
    "another zone": {"time": "2026-01-31T23:30:00.1234567-05:30"},
    "a leap day": {"time": "2024-02-29T12:00:00Z"},
    "long": {"subject": "🚀" * 500},
    "quotes": {"subject": "a\"b\\c'd; DROP TABLE x; -- ${x} {{y}} %s"},
}

ABSURD = {
    attributes["time"] for name, attributes in ATTRIBUTES.items() if name in ("first year", "before the Gregorian calendar", "last moment")
}


@pytest.mark.timeout(900)
def test_whatever_is_accepted_passes_every_station(search: Elasticsearch) -> None:
    run = uuid.uuid4().hex[:8]
    source = f"any-{run}-größe 🚀"
    sent: dict[str, tuple[str, dict[str, str]]] = {}
    for name, data in DATA.items():
        sent[f"{name} 🚀 {run}"] = (data, {})
    for name, attributes in ATTRIBUTES.items():
        sent[f"{name} {run}".ljust(200, "é")] = (f"{{{URL}}}", attributes)
    body = ",".join(
        json.dumps({"id": id, "source": source, "type": "page_view", "time": "2026-01-31T12:00:00Z"} | attributes, ensure_ascii=False)[:-1]
        + f',"data":{data}}}'
        for id, (data, attributes) in sent.items()
    )
    address = f"http://{os.environ['BIND_HOST']}:{os.environ['COLLECTOR_REST_PORT']}/v1/events"
    answer = httpx.post(address, content=f"[{body}]".encode(), headers={"content-type": "application/cloudevents-batch+json"},
                        auth=(os.environ["HEADRACE_WRITE_KEY"], ""), timeout=30)  # fmt: skip
    assert answer.json() == {"accepted": len(sent), "rejected": []}

    def documents() -> list[Any]:
        found = search.search(index="events_all", query={"term": {"source": source}}, size=1000)["hits"]["hits"]
        return [hit["_source"] for hit in found]

    in_search = {one["id"]: one["data"] for one in eventually(documents, lambda found: len(found) == len(sent))}
    assert in_search == {id: json.loads(data) for id, (data, _) in sent.items()}

    where = f"source = '{source}'"
    landed = f"SELECT id, data FROM lake.bronze.events WHERE {where}"
    in_bronze = eventually(lambda: rows(landed), lambda found: len(found) == len(sent))
    assert dict(in_bronze) == {id: data for id, (data, _) in sent.items()}, "byte for byte"

    run_dag(dict(os.environ), "curate", within=600)
    absurd = {id: attributes["time"] for id, (_, attributes) in sent.items() if attributes.get("time") in ABSURD}
    set_aside = rows(f"SELECT id, reason, to_iso8601(time) FROM lake.silver.quarantine WHERE {where}")
    assert {id: (reason, time[:10]) for id, reason, time in set_aside} == {
        id: ("invalid_attribute", time[:10]) for id, time in absurd.items()
    }
    kept = {id: data for id, (data, _) in sent.items() if id not in absurd}
    assert rows(f"SELECT count(*) FROM lake.silver.events WHERE {where}") == [[len(kept)]]
    found = rows(f"SELECT id, data_json, title, subject, to_iso8601(time) FROM lake.silver.page_view WHERE {where}")
    assert {row[0]: row[1] for row in found} == kept
    assert {row[0]: row[2] for row in found} == {id: json.loads(data).get("title") for id, data in kept.items()}
    by_name = {row[0].rstrip("é").removesuffix(f" {run}"): row for row in found}
    assert by_name["long"][3] == ATTRIBUTES["long"]["subject"]
    assert by_name["quotes"][3] == ATTRIBUTES["quotes"]["subject"]
    assert by_name["another zone"][4].startswith("2026-02-01T05:00:00.123457")
