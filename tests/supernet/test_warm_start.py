"""Weights carried into another supernet: the networks they hold are the ones they were."""

import numpy as np
import pytest
import torch

from nas.errors import ArtifactError
from supernet.batchnorm import Statistics, recalibrate
from supernet.extract import extract
from supernet.network import WEIGHTED, Supernet, slot_key
from supernet.warm_start import Carried, copy_supernet, write_network
from tests.small_spaces import SMALL_SPACES
from tests.supernet.networks import SUPERNET_SPACES, make_images, make_supernet, sample_architectures

NAMES = tuple("abcdefghij")


def fresh(space="micro_8", *, num_classes=10, in_channels=3, kernel_transform=False, seed=5):
    return Supernet(
        SMALL_SPACES[space],
        num_classes=num_classes,
        in_channels=in_channels,
        kernel_transform=kernel_transform,
        generator=torch.Generator().manual_seed(seed),
    )


def logits(supernet, images, architecture=None):
    with torch.no_grad():
        return supernet.eval()(images, architecture or supernet.space.largest())


def copied(target, source, *, names=NAMES, source_names=NAMES):
    return copy_supernet(target, source.state_dict(), class_names=names, source_class_names=source_names)


def bundled(supernet, architecture):
    """What a bundle of the network holds, and the logits it gives."""
    images = make_images(supernet.space, architecture)
    network = extract(supernet, architecture, recalibrate(supernet, architecture, [images]))
    with torch.no_grad():
        return network.state_dict(), images, network(images)


def statistics_in(weights, layers):
    """The bundle's own batch-norm statistics, as the supernet takes them."""
    named = {x.name: f"{slot_key(x.name)}.bn" for x in layers if x.kind in WEIGHTED and x.bn}
    return Statistics(
        means={name: weights[f"{key}.running_mean"] for name, key in named.items()},
        variances={name: weights[f"{key}.running_var"] for name, key in named.items()},
    )


# A whole supernet


@pytest.mark.parametrize("space", SUPERNET_SPACES)
def test_a_copied_supernet_is_the_source_to_the_last_bit(space):
    source, target = make_supernet(space), fresh(space)
    changes = copied(target, source)
    assert (changes.classifier, changes.first_layer) == (Carried.KEPT, Carried.KEPT)
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value), name


def test_the_source_is_left_as_it_was():
    source, target = make_supernet("micro_8"), fresh()
    before = {name: value.clone() for name, value in source.state_dict().items()}
    copied(target, source)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(source.state_dict()[name], value) for name, value in before.items())


def test_classes_in_another_order_keep_their_logits():
    source, target = make_supernet("micro_8"), fresh()
    order = np.random.default_rng(1).permutation(10)
    changes = copied(target, source, names=tuple(NAMES[i] for i in order))
    assert changes.classifier is Carried.PERMUTED
    images = make_images(source.space)
    # Not to the last bit: the order of rows may change the order in which a product is added up.
    torch.testing.assert_close(logits(target, images), logits(source, images)[:, torch.tensor(order)])
    rows = "slots.head_classifier.weights.weight"
    assert torch.equal(target.state_dict()[rows], source.state_dict()[rows][torch.tensor(order)])


@pytest.mark.parametrize(
    "names", [tuple("abcd"), tuple("abcdefghijkl"), (*NAMES[:-1], "new")], ids=["fewer", "more", "renamed"]
)
def test_other_classes_get_the_classifier_of_the_seed_and_all_else_of_the_source(names):
    source, target = make_supernet("micro_8"), fresh(num_classes=len(names))
    untouched = fresh(num_classes=len(names)).state_dict()
    changes = copied(target, source, names=names)
    assert changes.classifier is Carried.REINITIALISED
    for name, value in target.state_dict().items():
        expected = untouched if "head_classifier" in name else source.state_dict()
        assert torch.equal(value, expected[name]), name


def test_grey_images_give_what_they_gave_as_three_equal_colours():
    source, target = make_supernet("micro_8"), fresh(in_channels=1)
    assert copied(target, source).first_layer is Carried.ADAPTED
    grey = make_images(source.space)[:, :1]
    torch.testing.assert_close(logits(target, grey), logits(source, grey.expand(-1, 3, -1, -1)))


def test_equal_colours_give_what_grey_images_gave():
    source, target = fresh(in_channels=1, seed=1), fresh(in_channels=3)
    assert copied(target, source).first_layer is Carried.ADAPTED
    grey = make_images(source.space)[:, :1]
    torch.testing.assert_close(logits(target, grey.expand(-1, 3, -1, -1)), logits(source, grey))


def test_a_source_without_kernel_transforms_keeps_every_kernel_in_a_target_with_them():
    source, target = make_supernet("micro_8"), fresh(kernel_transform=True)
    copied(target, source)
    images = make_images(source.space)
    for architecture in sample_architectures(source.space, 4):
        expected = logits(source, images, architecture)
        torch.testing.assert_close(logits(target, images, architecture), expected)


def test_weights_that_are_not_the_space_s_are_refused_by_name():
    source, target = make_supernet("micro_8").state_dict(), fresh()
    name = "slots.stem.weights.weight"
    cases = {
        "lack slots.stem.weights.weight": {k: v for k, v in source.items() if k != name},
        "extra is no weight of space 'micro_8'": {**source, "extra": torch.zeros(1)},
        r"has shape \(16, 3, 5, 5\)": {**source, name: torch.zeros(16, 3, 5, 5)},
        "stem.weights.weight holds numbers that are not finite": {**source, name: source[name] * torch.nan},
        "head_classifier.weights.weight holds numbers": {
            **source,
            "slots.head_classifier.weights.weight": torch.zeros(10, 256, dtype=torch.int64),
        },
    }
    for message, weights in cases.items():
        with pytest.raises(ArtifactError, match=message):
            copy_supernet(target, weights, class_names=NAMES, source_class_names=NAMES)


# One network


@pytest.mark.parametrize(
    ("space", "source_transforms", "target_transforms"),
    [
        *((space, False, False) for space in SUPERNET_SPACES),
        ("micro_8", False, True),
        ("micro_8", True, False),
        ("micro_8", True, True),
    ],
)
def test_a_network_written_into_a_supernet_is_extracted_as_it_was(
    space, source_transforms, target_transforms
):
    source = make_supernet(space, kernel_transform=source_transforms)
    for architecture in sample_architectures(source.space, 1):
        weights, images, expected = bundled(source, architecture)
        target = fresh(space, kernel_transform=target_transforms)
        write_network(target, architecture, weights)
        statistics = statistics_in(weights, target.lower(architecture))
        network = extract(target, architecture, statistics)
        for name, value in weights.items():
            assert name.endswith("num_batches_tracked") or torch.equal(network.state_dict()[name], value)
        with torch.no_grad():
            assert (network(images) - expected).abs().max() <= 1e-5
            in_supernet = target.eval()(images, architecture, statistics)
            torch.testing.assert_close(in_supernet, expected, rtol=1e-4, atol=1e-4)


def test_transforms_that_were_trained_do_not_bend_a_network_that_is_written_over_them():
    source = make_supernet("micro_8")
    architecture = source.space.smallest()
    weights, _, _ = bundled(source, architecture)
    target = make_supernet("micro_8", seed=3, kernel_transform=True)
    write_network(target, architecture, weights)
    written = extract(target, architecture).state_dict()
    for name, value in weights.items():
        assert "running" in name or "num_batches" in name or torch.equal(written[name], value)


def test_what_the_network_does_not_use_stays_as_it_was():
    source, target = make_supernet("micro_8"), fresh()
    before = fresh().state_dict()
    weights, _, _ = bundled(source, source.space.smallest())
    write_network(target, source.space.smallest(), weights)
    after = target.state_dict()
    unused = "slots.stage1_block3_depthwise.weights.weight"
    assert torch.equal(after[unused], before[unused])
    # Of a layer that it uses in part: the ring around its kernel, and the channels beyond its own.
    partly = "slots.stage1_block1_depthwise.weights.weight"
    changed = after[partly] != before[partly]
    channels = weights["stage1_block1_depthwise.conv.weight"].shape[0]
    assert changed[:channels, :, 2:5, 2:5].all()
    assert int(changed.sum()) == channels * 9


def test_weights_of_another_network_are_refused_by_name():
    source, target = make_supernet("micro_8"), fresh()
    weights, _, _ = bundled(source, source.space.smallest())
    with pytest.raises(ArtifactError, match=r"the weights lack .* and .* more of architecture"):
        write_network(target, source.space.largest(), weights)
    with pytest.raises(ArtifactError, match=r"hold beyond it strange of architecture"):
        write_network(target, source.space.smallest(), {**weights, "strange": torch.zeros(1)})
    cut = {**weights, "stem.conv.weight": weights["stem.conv.weight"][:4]}
    with pytest.raises(ArtifactError, match=r"stem.conv.weight has shape \(4, 3, 3, 3\)"):
        write_network(target, source.space.smallest(), cut)
