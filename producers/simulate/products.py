"""What the simulated shop sells."""

from typing import NamedTuple


class Product(NamedTuple):
    """One product; `weight` is how popular it is beside the others."""

    id: str
    name: str
    price_usd: float
    weight: int


PRODUCTS = (
    Product("cd-01", "Kind of Blue", 11.97, 20),
    Product("cd-02", "Blue Train", 14.99, 14),
    Product("cd-03", "A Love Supreme", 13.49, 12),
    Product("cd-04", "Time Out", 12.99, 10),
    Product("cd-05", "Mingus Ah Um", 15.49, 8),
    Product("cd-06", "Goldberg Variations", 9.99, 8),
    Product("cd-07", "The Köln Concert", 17.99, 6),
    Product("cd-08", "Cello Suites", 21.5, 5),
    Product("cd-09", "Rhapsody in Blue", 8.99, 5),
    Product("cd-10", "Winterreise", 24.99, 3),
    Product("box-01", "The Complete Sonatas (10 CDs)", 89.0, 2),
    Product("pen-01", "Cleaning kit", 4.5, 7),
)
