"""Tastes: directions along which people are apart, by items and by what is said of them, and what they make of single looks."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from marketing_assets.recommendations import tastes, traits
from marketing_assets.recommendations.history import History, Integers
from marketing_assets.recommendations.lists import Singles
from marketing_assets.recommendations.tastes import Tastes, directions, interest, whereabouts
from marketing_assets.recommendations.traits import liked_directions, traits_of
from marketing_assets_tests.test_worth import looks_of


def everywhere(looked: sp.csr_array, along: Singles, apart: Singles) -> Singles:
    """people x items: interest of each in each."""
    people, items = looked.shape
    person, item = np.divmod(np.arange(people * items), items)
    return interest(whereabouts(looked, apart, along), along, person, item).reshape(people, items)


def two_tastes(seed: int, people: int, items: int, per_person: int) -> History:
    """Even people look at even items nine times of ten, odd ones at odd items."""
    rng = np.random.default_rng(seed)
    rows: dict[tuple[int, int], int] = {}
    for person in range(people):
        for _ in range(per_person):
            kind = person % 2 if rng.random() < 0.9 else 1 - person % 2
            key = (person, 2 * int(rng.integers(0, items // 2)) + kind)
            rows[key] = rows.get(key, 0) + 1
    return looks_of([(person, 1, item, views, False, False) for (person, item), views in rows.items()], items)


def matrix_of(history: History) -> sp.csr_array:
    return sp.csr_array(sp.coo_array((history.views.astype(float), (history.user, history.item)), (len(history.users), len(history.items))))


def test_interest_carries_over_to_items_never_looked_at() -> None:
    history = two_tastes(2, 300, 40, 30)
    looked = matrix_of(history)
    found = everywhere(sp.csr_array(sp.vstack([sp.csr_array((1, 40)), looked])), *directions(looked))
    assert (found[0] == 1).all(), "nothing is known of strangers"
    unseen = looked.toarray() == 0
    alike = (np.arange(300)[:, None] - np.arange(40)) % 2 == 0
    assert found[1:][unseen & alike].mean() > 1.5 * found[1:][unseen & ~alike].mean()


def test_no_interest_is_read_into_looks_by_chance() -> None:
    """Everyone looks at everything alike, so that the largest singular values are what chance makes them."""
    rng = np.random.default_rng(7)
    history = looks_of([(person, 1, item, 1, False, False) for person in range(300) for item in rng.choice(40, 15, replace=False)], 40)
    along, apart = directions(matrix_of(history))
    assert not apart.any() and not along.any()
    assert (everywhere(matrix_of(history), along, apart) == 1).all()


def test_what_people_are_apart_by_is_found_beneath_what_chance_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at even over odd items differ by a factor that is drawn with a known spread; the larger it is, the less is drawn back."""
    monkeypatch.setattr(tastes, "ITEM_PRIOR", 0.0)
    monkeypatch.setattr(tastes, "USER_PRIOR", 0.0)
    rng = np.random.default_rng(8)
    lean = rng.choice([-0.3, 0.3], 2000)
    counts = rng.poisson(1 + lean[:, None] * np.where(np.arange(40) % 2 == 0, 1, -1)).astype(float)
    apart = directions(sp.csr_array(counts))[1]
    assert 0.25 < apart[0] < 0.3 and not apart[1:].any()
    looked = matrix_of(two_tastes(2, 300, 40, 30))
    along, found = directions(looked)
    spread = [float(everywhere(looked, along, share * found).std()) for share in (0.1, 0.5, 1.0)]
    assert spread[0] < 0.5 * spread[1] < 0.5 * spread[2]


def test_directions_are_those_of_correspondence_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without priors and with all directions the counts come back: n_ui = n_u n_i / n x interest."""
    monkeypatch.setattr(tastes, "ITEM_PRIOR", 0.0)
    monkeypatch.setattr(tastes, "USER_PRIOR", 0.0)
    rng = np.random.default_rng(3)
    counts = (rng.poisson(3.0, (30, 12)).astype(float) + 1) * 1000  # so many that nothing of it is chance
    along = directions(sp.csr_array(counts))[0].astype(float)
    assert along.shape == (12, 10)
    share = counts / counts.sum(axis=1, keepdims=True)
    back = counts.sum(axis=1, keepdims=True) * (counts.sum(axis=0) / counts.sum()) * (1 + share @ along @ along.T)
    largest = np.linalg.svd((counts - np.outer(counts.sum(1), counts.sum(0)) / counts.sum())
                            / np.sqrt(np.outer(counts.sum(1), counts.sum(0))))[1]  # fmt: skip
    assert np.abs(back - counts).max() < 1000 and largest[10] < largest[0] / 3, "but for the one direction left out"
    monkeypatch.setattr(tastes, "DENSE_ITEMS", 0)
    sparse = directions(sp.csr_array(counts))[0].astype(float)
    np.testing.assert_allclose(sparse @ sparse.T, along @ along.T, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (2, 2), (40, 3), (3, 40)])
def test_few_people_or_items_have_few_directions(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    for dense in (512, 0):
        monkeypatch.setattr(tastes, "DENSE_ITEMS", dense)
        found, apart = directions(sp.csr_array(np.ones(shape)))
        assert found.shape == (shape[1], max(0, min(shape) - 2)) and np.isfinite(found).all() and len(apart) == found.shape[1]
        assert np.abs(found).max(initial=0.0) < 1e-6, "everyone looks at everything alike"
    assert directions(sp.csr_array(shape))[0].shape == (shape[1], 0)


def said_of(colours: Integers, cuts: Integers) -> pl.DataFrame:
    titles = [f"{('red', 'blue', 'green')[colour]} {('long', 'short')[cut]} coat" for colour, cut in zip(colours, cuts, strict=True)]
    said = {"category": ["coats", None] * (len(titles) // 2), "brand": [None] * len(titles), "title": titles}
    return pl.DataFrame(said, schema=dict.fromkeys(said, pl.String))


def unsaid(said: pl.DataFrame) -> pl.DataFrame:
    return said.with_columns(pl.lit(None, dtype=pl.String).alias(name) for name in said.columns)


def test_traits_are_categories_brands_and_words_that_tell_items_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    said = pl.DataFrame({
        "category": ["coats", "coats", "hats", None, "hats", "coats"],
        "brand": ["Acme", None, "Acme", "Rare", None, None],
        "title": ["Red COAT, 12", "red coat", "Red hat", None, "blue red hat", "red-ish coat"],
    })  # fmt: skip
    monkeypatch.setattr(traits, "LEAST_ITEMS", {"category": 1, "brand": 2, "word": 2, "word_in_category": 2})
    found = traits_of(said)
    # 'red' is in most titles, 'blue', 'ish' and the brand 'Rare' are of one item alone, numbers are no words
    columns = {tuple(column) for column in found.of.toarray().T.astype(int).tolist()}
    assert columns == {(1, 1, 0, 0, 0, 1), (0, 0, 1, 0, 1, 0), (1, 0, 1, 0, 0, 0)}
    assert found.of.shape[1] == len(found.group) == 3 + 2 + 2
    assert len(set(found.group.tolist())) == 6, "the two categories share a spread, each word has its own, within categories too"
    assert traits_of(said.clear()).of.shape == (0, 0)
    assert traits_of(unsaid(said)).of.shape == (6, 0)
    alone = traits_of(unsaid(said).with_columns(said["category"]))
    assert alone.of.shape == (6, 0) and not len(alone.group), "categories alone are for leanings"


def test_liking_carries_over_to_what_has_the_same_said_of_it() -> None:
    """People differ by colour and not by cut; a person looks at 12 of 400 items, from which items alone tell little."""
    rng = np.random.default_rng(11)
    colour, cut = rng.integers(0, 3, 400), rng.integers(0, 2, 400)
    like = rng.normal(0, 0.8, (600, 3))
    chance = np.exp(like)[:, colour]
    counts = rng.poisson(12 * chance / chance.sum(axis=1, keepdims=True)).astype(float)
    along, apart = liked_directions(sp.csr_array(counts), traits_of(said_of(colour, cut)))
    found = everywhere(sp.csr_array(counts), along, apart)
    truth = chance / chance.mean(axis=0)
    unseen = counts == 0
    by_items = everywhere(sp.csr_array(counts), *directions(sp.csr_array(counts)))
    right, alone = (np.corrcoef(np.log(values[unseen]), np.log(truth[unseen]))[0, 1] for values in (found, by_items))
    assert right > 0.6 and right > alone + 0.15
    between = [[found[:, (colour == c) & (cut == k)].mean(axis=1) for k in (0, 1)] for c in range(3)]
    assert max(float(np.abs(a - b).mean()) for a, b in between) < 0.15 * float(np.abs(between[0][0] - between[1][0]).mean())


def test_nobody_likes_what_everyone_looks_at_alike() -> None:
    rng = np.random.default_rng(12)
    colour, cut = rng.integers(0, 3, 60), rng.integers(0, 2, 60)
    counts = rng.poisson(0.5, (2000, 60)).astype(float)
    along, apart = liked_directions(sp.csr_array(counts), traits_of(said_of(colour, cut)))
    assert float(everywhere(sp.csr_array(counts), along, apart).std()) < 0.06
    some = said_of(colour, cut).with_columns(pl.when(pl.int_range(pl.len()) > 0).then("title").alias("title"), category=pl.lit(None, pl.String))
    along = liked_directions(sp.csr_array(counts), traits_of(some))[0]
    assert not along[0].any() and along[1:].any(axis=1).all(), "an item of which nothing is said is nowhere"
    for nothing in (sp.csr_array((5, 60)), sp.csr_array((0, 60))):
        none, far = liked_directions(nothing, traits_of(said_of(colour, cut)))
        assert none.shape == (60, 0) and far.shape == (0,)
    assert liked_directions(sp.csr_array(counts), traits_of(unsaid(said_of(colour, cut))))[0].shape == (60, 0)


def test_those_who_look_at_an_item_are_where_their_looks_put_them() -> None:
    """Against the mean interest of the people themselves, each as often as looking at it."""
    rng = np.random.default_rng(13)
    group = np.arange(30) % 3
    like = rng.normal(0, 0.5, (4000, 3))
    chance = np.exp(like)[:, group]
    counts = rng.poisson(60 * chance / chance.sum(axis=1, keepdims=True)).astype(float)
    looked = sp.csr_array(counts)
    along, apart = directions(looked)
    kept = Tastes(along, apart, along[:, :0], apart[:0])
    at, item = np.divmod(np.arange(900), 30)
    found = kept.of_those_who_look(at, item).reshape(30, 30)
    truth = (counts.T @ (chance / chance.mean(axis=0))) / counts.sum(axis=0)[:, None]
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.95
    assert np.abs(found - truth).max() < 0.12
    both = Tastes(along, apart, along, apart).of_those_who_look(at, item).reshape(30, 30)
    np.testing.assert_allclose(both, found**1.5, rtol=1e-6)
    half = np.where((np.arange(30) < 15)[:, None], along, 0).astype(np.float32)  # of the others nothing is said
    parts = Tastes(along, apart, half, apart).of_those_who_look(at, item).reshape(30, 30)
    np.testing.assert_allclose(parts[:15, :15], found[:15, :15] ** 1.5, rtol=1e-6)
    np.testing.assert_allclose(parts[:, 15:], found[:, 15:], rtol=1e-6)
    person, asked = np.arange(50), np.arange(50) % 30
    alone = kept.of_pairs(looked, person, asked, np.full(50, 2.0, dtype=np.float32))
    np.testing.assert_allclose(alone, 2 * everywhere(looked, along, apart)[person, asked], rtol=1e-6)
