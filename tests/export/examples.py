"""Networks, cards and bundles that the tests of this folder share."""

from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F

from nas.architecture import Architecture
from nas.trial import Split
from search_spaces import SPACES
from supernet.batchnorm import Statistics, recalibrate
from supernet.data import DataSource, ResizedSplits, TrainingBatches, load_source, make_splits
from supernet.data.augmentation import Augmentation
from supernet.data.sources import SourceKind
from supernet.evaluate import EVALUATION_BATCH_SIZE, SubnetEvaluator
from supernet.export import Card, Preprocessing, counted_costs, generate_source
from supernet.extract import PlainNetwork, extract
from supernet.network import Supernet

CLASS_NAMES = tuple("abcdefghij")


def random_supernet(space_name, *, in_channels=3):
    """Ten classes; no batch norm at its initial values, so that every layer shows in the logits."""
    generator = torch.Generator().manual_seed(0)
    supernet = Supernet(
        SPACES[space_name], num_classes=10, in_channels=in_channels, generator=generator
    ).eval()
    for name, parameter in supernet.named_parameters():
        if name.endswith("bn.weight"):
            torch.nn.init.uniform_(parameter, 0.5, 1.5, generator=generator)
        if name.endswith("bn.bias"):
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return supernet


def random_images(resolution_px, *, count=4, channels=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, channels, resolution_px, resolution_px, generator=generator)


def sampled_architectures(space, count):
    rng = np.random.default_rng(2)
    return [space.sample(rng) for _ in range(count)]


def calibrated_network(supernet, architecture):
    """The extracted network with statistics of random images."""
    images = random_images(supernet.space.resolution_px(architecture), channels=supernet.in_channels)
    return extract(supernet, architecture, recalibrate(supernet, architecture, [images]))


def generated_network(network: PlainNetwork):
    """The same network by its generated source."""
    module = ModuleType("model")
    exec(generate_source(network.layers, class_names=CLASS_NAMES), module.__dict__)
    generated = module.Network()
    generated.load_state_dict(network.state_dict())
    return generated.eval()


@dataclass
class Example:
    """A small network for the digits, trained a little, with what a bundle of it is written from."""

    supernet: Supernet
    architecture: Architecture
    statistics: Statistics
    network: PlainNetwork
    card: Card
    check: dict

    def supernet_logits(self, images):
        with torch.no_grad():
            return self.supernet(images, self.architecture, self.statistics)


def digits_example():
    splits = make_splits(load_source(DataSource(kind=SourceKind.BUNDLED, name="digits")))
    supernet = random_supernet("micro_8", in_channels=1)
    architecture = supernet.space.smallest()
    _train_a_little(supernet, architecture, splits)
    data = ResizedSplits(splits)
    evaluator = SubnetEvaluator(supernet, data, checkpoint="c" * 64)
    statistics = evaluator.statistics(architecture)
    network = extract(supernet, architecture, statistics)
    card = Card(
        architecture=architecture,
        costs=counted_costs(network.layers),
        evaluations=tuple(evaluator.measure(network, architecture, split) for split in Split),
        batch_size=EVALUATION_BATCH_SIZE,
        preprocessing=Preprocessing(resolution_px=8, mean=splits.mean, std=splits.std),
        class_names=splits.class_names,
        supernet_id="sn_1",
        supernet_checkpoint="c" * 64,
        data_fingerprint=splits.fingerprint,
        split_plan=splits.plan.to_json(),
        num_unreadable=2,
        stored_rule="as they were",
        recipe={"name": "bignas"},
        seeds={"training": 0},
        code_version="0.1.0",
    )
    check = {split: (data.images(split, 8), data.labels(split)) for split in Split}
    return Example(supernet, architecture, statistics, network, card, check)


def _train_a_little(supernet, architecture, splits):
    batches = TrainingBatches(splits, 64, 0, Augmentation(crop_padding=0, horizontal_flip=False))
    optimiser = torch.optim.SGD(supernet.parameters(), lr=0.1, momentum=0.9)
    supernet.train()
    for step in range(40):
        images, labels = batches.batch(step)
        loss = F.cross_entropy(supernet(images, architecture), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    supernet.eval()
