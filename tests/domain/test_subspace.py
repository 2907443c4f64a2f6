"""Parts of a space: what is drawn from one keeps to it, and all of a space is the space."""

from collections import Counter
from math import exp, log

import numpy as np
import pytest
from scipy.stats import chisquare

from nas.subspace import SubSpace
from search_spaces import SPACES

RESPELLED = ("nas_bench_macro", "nas_bench_201")
"""Spaces in which one network has several spellings."""
EXACT = sorted(SPACES.keys() - RESPELLED)


def halved(space):
    """Of every decision the upper half of its options, one at least."""
    return {d.name: d.options[len(d.options) // 2 :] for d in space.decisions}


def restrictions(space):
    first, last = space.decisions[0], space.decisions[-1]
    return [
        {first.name: first.options[:1]},
        {last.name: last.options[-1:]},
        {d.name: (d.options[0], d.options[-1]) for d in space.decisions},
        halved(space),
    ]


def conditional(space):
    """Decisions that others depend on, each with those."""
    children = {}
    for decision in space.decisions:
        if decision.active_if is not None:
            children.setdefault(decision.active_if.parent, []).append(decision)
    return [(d, children[d.name]) for d in space.decisions if d.name in children]


@pytest.mark.parametrize("name", sorted(SPACES))
def test_all_of_a_space_draws_what_the_space_draws_and_has_its_ends(name):
    space = SPACES[name]
    whole = SubSpace(space)
    ours, theirs = (np.random.default_rng(0) for _ in range(2))
    for _ in range(20):
        drawn, expected = whole.sample(ours), space.sample(theirs)
        assert (drawn, drawn.choices) == (expected, expected.choices)
        assert whole.contains(drawn)
    # No draw more, no draw less: whoever draws next draws the same.
    assert ours.integers(2**60) == theirs.integers(2**60)
    assert (whole.largest(), whole.smallest()) == (space.largest(), space.smallest())


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("which", range(4))
def test_a_part_draws_only_what_it_keeps_and_all_of_that(name, which):
    space = SPACES[name]
    part = SubSpace(space, restrictions(space)[which])
    rng = np.random.default_rng(1)
    drawn = [part.sample(rng) for _ in range(300)]
    for decision in space.decisions:
        seen = {n.get(decision.name) for n in drawn} - {None}
        assert seen <= set(part.options(decision))
        if decision.active_if is None and len(part.options(decision)) < 20:
            assert seen == set(part.options(decision))
    assert all(part.contains(network) and space.contains(network) for network in drawn)


def test_where_networks_are_respelled_a_part_that_keeps_alike_what_is_exchanged_keeps_its_options():
    space = SPACES["nas_bench_macro"]
    part = SubSpace(space, {d.name: d.options[:2] for d in space.decisions})
    rng = np.random.default_rng(1)
    drawn = [part.sample(rng) for _ in range(100)]
    assert all(part.contains(network) for network in [*drawn, part.largest(), part.smallest()])
    assert len({network.key for network in drawn}) > 20


@pytest.mark.parametrize("name", sorted(SPACES))
def test_the_ends_of_a_part_take_what_is_left_at_either_end(name):
    space = SPACES[name]
    for kept in restrictions(space):
        part = SubSpace(space, kept)
        for end, place in ((part.largest(), -1), (part.smallest(), 0)):
            assert end == space.parse({d.name: part.options(d)[place] for d in space.decisions})
            assert part.contains(end) or name in RESPELLED


def test_a_part_does_not_contain_what_it_leaves_out_but_asks_only_of_active_decisions():
    space = SPACES["micro_8"]
    assert SubSpace(space).contains(space.smallest())
    assert not SubSpace(space, halved(space)).contains(space.smallest())
    _, children = conditional(space)[0]
    only_the_last = {children[-1].name: children[-1].options[-1:]}
    assert SubSpace(space, only_the_last).contains(space.smallest())


def test_the_probability_of_a_network_is_how_often_it_is_drawn():
    space = SPACES["micro_8"]
    depth, children = conditional(space)[0]
    kept = {d.name: d.options[:1] for d in space.decisions}
    for decision in (depth, children[-1]):
        kept[decision.name] = decision.options
    part = SubSpace(space, kept)
    rng, count = np.random.default_rng(2), 6000
    drawn = Counter(part.sample(rng) for _ in range(count))
    expected = {network: exp(part.log_probability(network)) for network in drawn}
    # Depths without the last block, and with it each of its options.
    assert sum(expected.values()) == pytest.approx(1.0)
    assert len(set(expected.values())) == 2
    assert chisquare([drawn[n] for n in drawn], [count * expected[n] for n in drawn]).pvalue > 1e-3


def test_the_log_probability_counts_what_is_left_of_the_decisions():
    space = SPACES["nas_bench_macro"]
    first, *others = space.decisions
    everywhere = {d.name: d.options[:1] for d in space.decisions}
    assert SubSpace(space, everywhere).log_probability(space.smallest()) == 0.0
    but_first = SubSpace(space, {first.name: first.options[:1]})
    assert but_first.log_probability(space.smallest()) == pytest.approx(
        -sum(log(len(d.options)) for d in others)
    )


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        ({"height": (1,)}, "'height' is no decision of space 'micro_8'"),
        ({"stage1.depth": ()}, r"\(\) are not some of \(1, 2, 3\), the options of 'stage1.depth', in order"),
        ({"stage1.depth": (1, 9)}, r"\(1, 9\) are not some of"),
        ({"stage1.depth": (3, 1)}, r"\(3, 1\) are not some of .* in order"),
    ],
)
def test_what_is_no_part_of_the_space_is_refused_with_the_reason(kept, told):
    with pytest.raises(ValueError, match=told):
        SubSpace(SPACES["micro_8"], kept)
