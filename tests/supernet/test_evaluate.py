"""Measuring is faster than the plain path and gives its very bits, whatever was measured before."""

import numpy as np
import pytest
import torch

from nas.trial import Split
from search_spaces import SPACES
from supernet.batchnorm import recalibrate
from supernet.data import (
    ArrayListing,
    GivenSplit,
    LabelledArrays,
    ResizedSplits,
    SplitPlan,
    Storage,
    load_listing,
    make_splits,
)
from supernet.data.batches import calibration_batches, evaluation_batches
from supernet.evaluate import CALIBRATION_BATCH_SIZE, EVALUATION_BATCH_SIZE, SubnetEvaluator
from supernet.extract import extract
from supernet.graph import run_block, run_layers, split_into_blocks
from supernet.pieces import SMALLEST_PIECE, _piece_sizes, run_in_pieces
from supernet.prefixes import Prefix, PrefixCache
from tests.supernet.networks import SUPERNET_SPACES, make_images, make_supernet, sample_architectures

CLASSES = tuple("abcdefghij")
AMPLE = 2**28


def random_data(side, *, num_val=80, num_calibration=32):
    """Random images: `num_val` to measure on, as many to train on."""
    rng = np.random.default_rng(0)

    def images(count):
        pixels = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        return LabelledArrays(images=pixels, labels=np.arange(count) % 10)

    arrays = {GivenSplit.TRAIN: images(2 * num_val), GivenSplit.TEST: images(10)}
    listing = ArrayListing(class_names=CLASSES, arrays=arrays)
    plan = SplitPlan(val_fraction=0.5, calibration_images=num_calibration)
    return ResizedSplits(make_splits(load_listing(listing, Storage()), plan))


def data_for(space):
    return random_data(space.resolutions_px()[-1])


def outcomes(evaluator, architectures):
    return {a: evaluator.evaluate(a).correct_bitmap for a in architectures}


def neighbours(space, count, seed=0):
    """A network and others that begin like it."""
    rng = np.random.default_rng(seed)
    parent = space.sample(rng)
    return list(dict.fromkeys([parent] + [space.mutate(parent, rng) for _ in range(count)]))


@pytest.fixture(params=SUPERNET_SPACES)
def name(request):
    torch.set_num_threads(1)
    return request.param


def test_what_is_measured_is_the_extracted_network_on_the_plain_path(name):
    supernet = make_supernet(name).eval()
    data = data_for(supernet.space)
    evaluator = SubnetEvaluator(supernet, data, checkpoint="c", max_kept_bytes=AMPLE)
    for architecture in sample_architectures(supernet.space, 1):
        resolution = supernet.space.resolution_px(architecture)
        batches = calibration_batches(data, resolution, CALIBRATION_BATCH_SIZE)
        statistics = recalibrate(supernet, architecture, batches)
        measured = evaluator.statistics(architecture)
        assert measured.means.keys() == statistics.means.keys()
        for slot in statistics.means:
            assert torch.equal(measured.means[slot], statistics.means[slot])
            assert torch.equal(measured.variances[slot], statistics.variances[slot])
        published = extract(supernet, architecture, statistics)
        expected = evaluator.measure(published, architecture, Split.VAL)
        assert evaluator.evaluate(architecture).correct_bitmap == expected.correct_bitmap


def test_pieces_give_the_bits_of_the_whole_batch(name):
    supernet = make_supernet(name).eval()
    data = random_data(supernet.space.resolutions_px()[-1], num_val=EVALUATION_BATCH_SIZE)
    architecture = supernet.space.largest()
    layers = supernet.lower(architecture)
    resolution = supernet.space.resolution_px(architecture)
    images, _ = next(evaluation_batches(data, Split.VAL, resolution, EVALUATION_BATCH_SIZE))
    statistics = recalibrate(supernet, architecture, [images[:100]])
    with torch.no_grad():
        run_layer = supernet.layer_runner(statistics.normalise)
        in_pieces = run_in_pieces(layers, split_into_blocks(layers), images, run_layer)
        assert torch.equal(in_pieces, supernet(images, architecture, statistics))


def test_blocks_one_after_the_other_are_the_network(name):
    supernet = make_supernet(name).eval()
    for architecture in sample_architectures(supernet.space, 4):
        layers = supernet.lower(architecture)
        blocks = split_into_blocks(layers)
        assert [position for block in blocks for position in block] == list(range(len(layers)))
        images = make_images(supernet.space, architecture)
        statistics = recalibrate(supernet, architecture, [images])
        with torch.no_grad():
            run_layer = supernet.layer_runner(statistics.normalise)
            x = images
            for block in blocks:
                x = run_block(layers, block, x, run_layer)
            assert torch.equal(x, run_layers(layers, images, run_layer))


@pytest.mark.parametrize("max_kept_bytes", [2**22, AMPLE])
def test_neither_order_nor_what_is_kept_shows_in_a_result(name, max_kept_bytes):
    supernet = make_supernet(name).eval()
    data = data_for(supernet.space)
    architectures = neighbours(supernet.space, 2)
    alone = {
        architecture: SubnetEvaluator(supernet, data, checkpoint="c").evaluate(architecture).correct_bitmap
        for architecture in architectures
    }
    keeping = SubnetEvaluator(supernet, data, checkpoint="c", max_kept_bytes=max_kept_bytes)
    assert outcomes(keeping, architectures) == alone
    assert outcomes(keeping, architectures[::-1]) == alone


def test_statistics_from_kept_activations_are_the_same_bits():
    supernet = make_supernet("micro").eval()
    data = data_for(supernet.space)
    keeping = SubnetEvaluator(supernet, data, checkpoint="c", max_kept_bytes=AMPLE)
    plain = SubnetEvaluator(supernet, data, checkpoint="c")
    for architecture in [*neighbours(supernet.space, 3), *neighbours(supernet.space, 3)]:
        kept, fresh = keeping.statistics(architecture), plain.statistics(architecture)
        for slot, mean in fresh.means.items():
            assert torch.equal(kept.means[slot], mean)
            assert torch.equal(kept.variances[slot], fresh.variances[slot])


def test_without_leave_to_keep_changed_weights_are_seen():
    supernet = make_supernet("micro").eval()
    evaluator = SubnetEvaluator(supernet, data_for(supernet.space), checkpoint="c")
    architecture = supernet.space.smallest()
    before = evaluator.statistics(architecture)
    with torch.no_grad():
        supernet.slots["stem"].weights.weight.mul_(2)
    assert torch.allclose(evaluator.statistics(architecture).means["stem"], 2 * before.means["stem"])


def prefix_of(num_bytes, stop=1):
    return Prefix(stop, torch.zeros(num_bytes // 4))


def test_no_more_is_kept_than_allowed_and_the_longest_unused_goes_first():
    space = SPACES["micro"]
    layers = space.lower(space.largest())
    cache = PrefixCache(max_bytes=1000)
    for batch in ("first", "second"):
        cache.keep(batch, layers, prefix_of(400))
    assert cache.longest("first", layers, (1,)) is not None
    cache.keep("third", layers, prefix_of(400))
    assert cache.held_bytes == 800
    assert cache.longest("second", layers, (1,)) is None
    assert cache.longest("first", layers, (1,)) is not None
    cache.keep("huge", layers, prefix_of(1004))
    assert cache.held_bytes == 800
    assert cache.longest("huge", layers, (1,)) is None


def test_a_prefix_is_found_by_networks_that_begin_with_it_and_by_no_others():
    space = SPACES["micro"]
    largest, smallest = space.lower(space.largest()), space.lower(space.smallest())
    cache = PrefixCache(max_bytes=AMPLE)
    cache.keep(("val", 0), largest, prefix_of(8, stop=1))
    cache.keep(("val", 0), largest, prefix_of(8, stop=2))
    assert cache.longest(("val", 0), largest, (1, 2, 3)).stop == 2
    assert cache.longest(("val", 1), largest, (1, 2, 3)) is None
    # The stem of another resolution is another layer.
    assert cache.longest(("val", 0), smallest, (1, 2, 3)) is None


@pytest.mark.parametrize("num_images", [32, 64, 100, 500, 512, 577, 1000])
def test_pieces_are_multiples_of_the_smallest_and_none_is_smaller(num_images):
    num_pieces = 1
    while num_pieces * SMALLEST_PIECE <= num_images:
        sizes = _piece_sizes(num_images, num_pieces)
        assert sum(sizes) == num_images
        assert min(sizes) >= SMALLEST_PIECE
        assert all(size % SMALLEST_PIECE == 0 for size in sizes[:-1])
        assert len(sizes) <= 2 * num_pieces
        num_pieces *= 2
