"""What customers write: reviews by theme, made of parts, so that a reader of complaints has something to find.

What belongs here: words. What does not: who writes when (shop.py).
"""

from __future__ import annotations

import numpy as np

THEMES = ("praise", "delivery", "defect", "size", "price", "description")
_OPENINGS = {
    "praise": ("Really pleased with this {noun}.", "Lovely {noun}, exactly what I wanted.", "Second one I buy, still happy.", "Great {noun}."),
    "delivery": ("The parcel came {days} days late.", "Still waiting, tracking has not moved for {days} days.",
                 "Courier left the box in the rain.", "Delivery took far too long, {days} days instead of two."),
    "defect": ("The {noun} arrived broken.", "It stopped working after {days} days.", "There is a crack on one side.",
               "Came with a scratch and a loose part."),
    "size": ("Much smaller than I expected.", "It does not fit, far too big.", "The size is wrong, off by several centimetres.",
             "Too narrow for what it says."),
    "price": ("Far too expensive for what it is.", "Saw the same {noun} cheaper elsewhere a week later.", "Not worth the money.",
              "The price went up right before I ordered."),
    "description": ("Looks nothing like the picture.", "The colour differs from the photo.", "Description says metal, it is plastic.",
                    "Listed as a set, only one piece came."),
}  # fmt: skip
_ENDINGS = {
    "praise": ("Would buy again.", "My sister wants one too.", "Good quality for everyday use.", ""),
    "delivery": ("Please sort out your shipping.", "Nobody answers my mails.", "It was meant as a present.", ""),
    "defect": ("I want a replacement.", "I would like my money back.", "Poorly packed.", ""),
    "size": ("I am sending it back.", "Please state the measures.", "Had to exchange it.", ""),
    "price": ("Disappointed.", "Will compare first next time.", "A discount would be fair.", ""),
    "description": ("Please correct the page.", "I am returning it.", "Felt misled.", ""),
}
SEARCHES = ("gift", "{noun}", "{category}", "{style} {category}", "cheap {noun}", "{noun} {colour}")


def review(theme: str, noun: str, rng: np.random.Generator) -> str:
    """Text of a review about one theme."""
    opening = _OPENINGS[theme][int(rng.integers(4))].format(noun=noun, days=int(rng.integers(3, 15)))
    return f"{opening} {_ENDINGS[theme][int(rng.integers(4))]}".strip()


def theme_and_stars(quality: float, rng: np.random.Generator) -> tuple[str, int]:
    """What a customer writes about and the stars given, by how good the item is."""
    if rng.random() < quality:
        return "praise", int(rng.choice([4, 5], p=[0.3, 0.7]))
    theme = str(rng.choice(THEMES[1:], p=[0.3, 0.25, 0.2, 0.1, 0.15]))
    return theme, int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.2]))
