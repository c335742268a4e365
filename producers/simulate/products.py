"""What the simulated shop sells, and who likes what."""

from itertools import accumulate
from typing import NamedTuple
from zlib import crc32


class Product(NamedTuple):
    """One product; `weight` is how popular it is beside the others."""

    id: str
    name: str
    price_usd: float
    weight: int
    genre: str  # which no event tells: what belongs together shows in what people do


PRODUCTS = (
    Product("cd-01", "Kind of Blue", 11.97, 20, "jazz"),
    Product("cd-02", "Blue Train", 14.99, 14, "jazz"),
    Product("cd-03", "A Love Supreme", 13.49, 12, "jazz"),
    Product("cd-04", "Time Out", 12.99, 10, "jazz"),
    Product("cd-05", "Mingus Ah Um", 15.49, 8, "jazz"),
    Product("cd-06", "Goldberg Variations", 9.99, 8, "keys"),
    Product("cd-07", "The Köln Concert", 17.99, 6, "keys"),
    Product("cd-08", "Cello Suites", 21.5, 5, "strings"),
    Product("cd-09", "Rhapsody in Blue", 8.99, 5, "orchestra"),
    Product("cd-10", "Winterreise", 24.99, 3, "voices"),
    Product("cd-11", "Saxophone Colossus", 13.99, 6, "jazz"),
    Product("cd-12", "Maiden Voyage", 14.49, 4, "jazz"),
    Product("cd-13", "Nocturnes", 10.99, 7, "keys"),
    Product("cd-14", "Gymnopédies", 8.49, 9, "keys"),
    Product("cd-15", "The Well-Tempered Clavier", 26.5, 3, "keys"),
    Product("cd-16", "Pictures at an Exhibition", 9.49, 4, "keys"),
    Product("cd-17", "The Four Seasons", 7.99, 12, "strings"),
    Product("cd-18", "Death and the Maiden", 13.99, 4, "strings"),
    Product("cd-19", "Sonatas and Partitas", 22.99, 3, "strings"),
    Product("cd-20", "Metamorphosen", 15.99, 2, "strings"),
    Product("cd-21", "Symphony No. 5", 9.99, 10, "orchestra"),
    Product("cd-22", "The Planets", 10.49, 8, "orchestra"),
    Product("cd-23", "The Rite of Spring", 12.49, 5, "orchestra"),
    Product("cd-24", "Symphony No. 9", 11.99, 9, "orchestra"),
    Product("cd-25", "Requiem", 12.99, 8, "voices"),
    Product("cd-26", "Carmina Burana", 9.99, 7, "voices"),
    Product("cd-27", "Vespers", 18.99, 2, "voices"),
    Product("cd-28", "Mass in B minor", 19.99, 3, "voices"),
    Product("box-01", "The Complete Sonatas (10 CDs)", 89.0, 2, "keys"),
    Product("pen-01", "Cleaning kit", 4.5, 7, "care"),
)
EVERYTHING = list(accumulate(each.weight for each in PRODUCTS))
GENRES = ("jazz", "keys", "strings", "orchestra", "voices")
_OWN = {genre: [each for each in PRODUCTS if each.genre == genre] for genre in GENRES}
OF_GENRE = {genre: (own, list(accumulate(each.weight for each in own))) for genre, own in _OWN.items()}


def favourite(customer: str) -> str:
    """The genre that a customer likes: always the same, whatever the seed."""
    return GENRES[crc32(customer.encode()) % len(GENRES)]
