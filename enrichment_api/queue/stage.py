"""Scoring through Kafka: what a request and a reply are, and the stage between them.

`scoring.requests` holds `{"correlation_id": "...", "reply_to": "scoring.replies", "event": {id, source, type, time, subject, data}}`; the
reply goes to `reply_to`, which is `scoring.replies` or begins with `scoring.replies.`, under the key `correlation_id`:
`{"correlation_id": "...", "enrichment": {"repurchase": {...}}}`, `{}` where there is no score, as the API answers.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec

from enrichment_api import scoring
from enrichment_api.customers import States
from enrichment_api.serving import Serving
from headrace.dead_letter import Invalid, Reason
from headrace.messages import Message, Rejected

REQUESTS, REPLIES = "scoring.requests", "scoring.replies"


class Request(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One event to be scored, and where the answer goes."""

    correlation_id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    event: scoring.Asked
    reply_to: Annotated[str, msgspec.Meta(max_length=249)] = REPLIES


class Reply(msgspec.Struct, gc=False):
    """What its requester finds, perhaps more than once where it asked more than once."""

    correlation_id: str
    enrichment: dict[str, scoring.Enrichment]


_decode = msgspec.json.Decoder(Request).decode
_encode = msgspec.json.Encoder().encode


class QueueStage:
    """`publish` writes into the runner's open transaction. `exists` says whether there is a topic of this name; it may ask Kafka.

    `prefix` stands before the names of all topics (in tests).
    """

    def __init__(
        self,
        serving: Callable[[], Serving],
        customers: Callable[[], States],
        publish: Callable[[str, list[dict[str, Any]]], None],
        exists: Callable[[str], bool],
        prefix: str = "",
    ) -> None:
        self._serving, self._customers = serving, customers
        self._publish, self._exists = publish, exists
        self._replies = prefix + REPLIES

    def parse(self, message: Message) -> Request:
        """A request, or Invalid."""
        try:
            request = _decode(message.value() or b"")
        except msgspec.ValidationError as error:
            raise Invalid(Reason.MALFORMED, f"not a scoring request: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Invalid(Reason.UNPARSEABLE, f"not JSON: {error}") from None
        if request.reply_to == REPLIES:
            request.reply_to = self._replies
        if request.reply_to != self._replies and not request.reply_to.startswith(self._replies + "."):
            raise Invalid(Reason.INVALID_ATTRIBUTE, f"reply_to: {request.reply_to[:100]!r} does not begin with {self._replies}.")
        return request

    def deliver(self, items: Sequence[tuple[Message, Request]]) -> Sequence[Rejected]:
        """Score all in one go, and publish the replies by topic. Refused: who wants the answer in a topic that is not there."""
        rejected, asked = [], []
        for message, request in items:
            if self._exists(request.reply_to):
                asked.append(request)
            else:
                rejected.append(Rejected(message, Reason.INVALID_ATTRIBUTE, f"reply_to: there is no topic {request.reply_to[:100]!r}"))
        answers = scoring.score([request.event for request in asked], self._customers(), self._serving())
        replies: dict[str, list[dict[str, Any]]] = {}
        for request, answer in zip(asked, answers, strict=True):
            value = _encode(Reply(request.correlation_id, answer))
            replies.setdefault(request.reply_to, []).append({"key": request.correlation_id.encode(errors="replace"), "value": value})
        for topic, messages in replies.items():
            self._publish(topic, messages)
        return rejected
