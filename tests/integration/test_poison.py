"""A message that ends the process is found and dead-lettered alone, whatever it ends it by."""

import pytest

from headrace import dead_letter
from headrace.dead_letter import Reason
from tests.integration.consumers import Supervised, duplicates, eventually, ids_in, pair, produce, raw_event, read_all, topics


@pytest.mark.parametrize("how", ["parse exception", "parse segfault", "deliver exit", "deliver kill"])
def test_a_message_that_ends_the_process_is_dead_lettered_and_all_others_are_delivered(how: str) -> None:
    good, poison = [f"e{n}" for n in range(200)], pair(raw_event("poison"))
    with topics(2) as ours, Supervised("enricher", ours, TEST_POISON=how) as enricher:
        produce(ours.raw, [pair(raw_event(id)) for id in good[:100]])
        produce(ours.raw, [poison])
        produce(ours.raw, [pair(raw_event(id)) for id in good[100:]])
        eventually(lambda: len(read_all(ours.enriched)), len(good))
        eventually(lambda: len(read_all(ours.dead_letter("enricher"))), 1)
        found = ids_in(ours.enriched)
        assert duplicates(found) == []
        assert set(found) == set(good)
        (letter,) = [dead_letter.decode(message.value()) for message in read_all(ours.dead_letter("enricher"))]
        assert (letter.reason, letter.id, letter.payload_bytes()) == (Reason.POISON, "poison", poison[1])
        assert 3 <= len(enricher.ends) <= 9
        assert enricher.stop() == 0
