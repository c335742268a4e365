"""What visitors of the shop do: many at once, some of whom log in and buy, and now and then an event that is wrong.

Pure: the same seed gives the same events. Only their time is left open, for that is the moment of sending.
"""

import heapq
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any, Literal, NamedTuple

import orjson

from headrace.dead_letter import Reason
from producers.simulate.products import EVERYTHING, OF_GENRE, PRODUCTS, Product, favourite

SOURCE = "simulate"
SHOP = "https://shop.example"
VISITORS = 500  # at one time
CUSTOMERS = 5000
_REFERRERS = ("", "", "https://search.example/", "https://news.example/jazz", "https://social.example/")
_TASTE = 0.7  # so often somebody looks at what they like; else at anything, by how popular it is
_METHODS = ("password", "password", "google", "apple")

Refuser = Literal["request", "collector", "enricher"]


class Refusal(NamedTuple):
    """What must become of a bad event: who refuses it, and why. `request` is one that spoils its whole request."""

    by: Refuser
    reason: Reason


# What must become of it, and how a good event is changed: in place, or into bytes that are no JSON.
Spoiler = tuple[Refusal, Callable[[dict[str, Any]], bytes | None]]


class SimulatedEvent(NamedTuple):
    """An event without its time, or the bytes that stand for a broken one."""

    attributes: Mapping[str, Any]
    refusal: Refusal | None = None
    broken: bytes | None = None

    def text(self, time: str) -> bytes:
        """The JSON text of the CloudEvent, sent at `time` (what a broken one has in its place)."""
        return self.broken if self.broken is not None else orjson.dumps({"time": time, **self.attributes})


class _Step(NamedTuple):
    """Something that a visitor does, so many seconds after the step before."""

    pause: float
    type: str
    subject: str
    data: Mapping[str, Any]


def history(seed: int, visits: int, seconds: float) -> list[tuple[float, SimulatedEvent]]:
    """So many visits that begin anywhere within `seconds`: their events in the order in which they happen, each with its second."""
    random, steps = Random(f"{seed} history"), list[tuple[float, _Step]]()
    for number in range(visits):
        at = random.uniform(0, seconds)
        for step in _visit(random, f"{seed}-h{number}"):
            at += step.pause
            steps.append((at, step))
    steps.sort(key=lambda each: each[0])
    return [(at, SimulatedEvent(_attributes(f"sim-{seed}-h{number:08}", step))) for number, (at, step) in enumerate(steps, start=1)]


def sessions(seed: int, bad: float = 0.01) -> Iterator[SimulatedEvent]:
    """Events without end, in the order in which they happen; `bad` is the share of those that must be refused."""
    chance = Random(f"{seed} bad")  # of its own, so that good events are the same for any share of bad ones
    spoiled = 0
    for number, step in enumerate(_together(Random(seed), seed), start=1):
        while chance.random() < bad:
            spoiled += 1
            yield _spoiled(spoiled, f"sim-{seed}-bad-{spoiled:06}")
        yield SimulatedEvent(_attributes(f"sim-{seed}-{number:08}", step))


def _attributes(id: str, step: _Step) -> dict[str, Any]:
    return {"specversion": "1.0", "id": id, "source": SOURCE, "type": step.type, "subject": step.subject, "data": step.data}


def _together(random: Random, seed: int) -> Iterator[_Step]:
    """The steps of all visitors by time. Where one leaves, another comes."""
    visits = 0

    def next_visit() -> Iterator[_Step]:
        nonlocal visits
        visits += 1
        return _visit(random, f"{seed}-{visits}")

    def under_way() -> Iterator[_Step]:
        """A visit that began some steps ago: else all would land on the first page together."""
        visit = list(next_visit())
        return iter(visit[random.randrange(len(visit)) :])

    first = [under_way() for _ in range(VISITORS)]
    waiting = [(random.uniform(0, 15), place, next(visit), visit) for place, visit in enumerate(first)]
    heapq.heapify(waiting)
    while True:
        at, place, step, visit = waiting[0]
        yield step
        following = next(visit, None)
        if following is None:
            visit = next_visit()
            following = next(visit)
        heapq.heapreplace(waiting, (at + following.pause, place, following, visit))


def _visit(random: Random, name: str) -> Iterator[_Step]:
    """One visit: a landing page, some products, perhaps a cart, a login and a purchase.

    Whoever comes has a taste, which what they look at shows before they say who they are.
    """
    session, who = f"s-{name}", f"anon-{name}"
    # The smaller a customer's number, the more often they come.
    customer = f"sim-customer-{int(CUSTOMERS * random.random() ** 2):05}"
    liked, weights = OF_GENRE[favourite(customer)]
    cart: list[tuple[Product, int]] = []

    def step(type: str, pause: float, **data: Any) -> _Step:
        return _Step(random.expovariate(1 / pause), type, who, {**data, "session_id": session})

    def page(path: str, title: str, **more: Any) -> _Step:
        return step("page_view", 15, url=SHOP + path, path=path, title=title, **more)

    yield page("/", "Shop", referrer=random.choice(_REFERRERS))
    while random.random() < 0.75:
        if random.random() < _TASTE:
            product = random.choices(liked, cum_weights=weights)[0]
        else:
            product = random.choices(PRODUCTS, cum_weights=EVERYTHING)[0]
        yield page(f"/p/{product.id}", product.name)
        if random.random() < 0.3:
            yield step("button_click", 8, button_id="tracklist", text="Track list", url=f"{SHOP}/p/{product.id}")
        if random.random() < 0.3:
            quantity = random.choices((1, 2, 3), weights=(80, 15, 5))[0]
            cart.append((product, quantity))
            yield step("add_to_cart", 10, product_id=product.id, name=product.name, quantity=quantity, price_usd=product.price_usd)
    if not cart or random.random() < 0.35:
        return
    yield page("/checkout", "Checkout")
    if random.random() < 0.2:
        return
    anonymous, who = who, customer
    yield step("login", 20, method=random.choice(_METHODS))
    yield _Step(0.1, "alias", who, {"previous_id": anonymous})
    yield step("button_click", 15, button_id="buy", text="Buy now", url=f"{SHOP}/checkout")
    yield step(
        "purchase",
        1,
        quantity=sum(quantity for _, quantity in cart),
        amount_usd=round(sum(product.price_usd * quantity for product, quantity in cart), 2),
        order_id=f"o-{name}",
        products=[
            {"product_id": product.id, "name": product.name, "quantity": quantity, "price_usd": product.price_usd}
            for product, quantity in cart
        ],
    )
    yield page("/thanks", "Thank you")


def _spoiled(number: int, id: str) -> SimulatedEvent:
    refusal, change = _SPOILERS[number % len(_SPOILERS)]
    attributes = _attributes(id, _Step(0, "purchase", "sim-customer-bad", {"quantity": 1, "amount_usd": 11.97}))
    broken = change(attributes)
    return SimulatedEvent(attributes, refusal, broken)


def _changing(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda attributes: attributes.update(values)


# One of each kind of mistake that senders make.
_SPOILERS: tuple[Spoiler, ...] = (
    (Refusal("collector", Reason.UNKNOWN_TYPE), _changing(type="wish_list_view")),
    (Refusal("collector", Reason.UNKNOWN_SCHEMA), _changing(dataschema="purchase/9-9-9")),
    (Refusal("collector", Reason.MISSING_ATTRIBUTE), _changing(subject=None)),
    (Refusal("collector", Reason.MISSING_ATTRIBUTE), _changing(source="")),
    (Refusal("collector", Reason.INVALID_ATTRIBUTE), _changing(time="yesterday")),
    (Refusal("enricher", Reason.SCHEMA_INVALID), _changing(data={"quantity": "two", "amount_usd": 11.97})),
    (Refusal("enricher", Reason.SCHEMA_INVALID), _changing(data={"quantity": 1})),
    (Refusal("request", Reason.UNPARSEABLE), lambda attributes: orjson.dumps(attributes)[:-10]),
)
