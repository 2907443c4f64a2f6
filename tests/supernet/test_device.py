"""Devices: which one is taken, and that nothing on the way to it changes what the processor computes."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from nas.errors import InvalidRequestError
from nas.trial import Split
from search_spaces import SPACES
from supernet.batchnorm import recalibrate
from supernet.data import (
    ArrayListing,
    Augmentation,
    GivenSplit,
    LabelledArrays,
    ResizedSplits,
    SplitPlan,
    Storage,
    TrainingBatches,
    load_listing,
    make_splits,
)
from supernet.data.augmentation import crop_and_flip, draw_shifts
from supernet.data.preprocess import standardise, to_channels_last
from supernet.device import room_bytes, take_device
from supernet.network import Supernet
from supernet.training.distillation import SoftDistillation
from supernet.training.gradient import FlatGradients
from supernet.training.paths import Role
from supernet.training.state import machine_of, repeats_bits
from tests.training.toy import slot_in

VARIED = Augmentation(crop_padding=2, horizontal_flip=True)


@pytest.fixture(scope="module")
def splits():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (400, 12, 12, 3), dtype=np.uint8)
    arrays = {GivenSplit.TRAIN: LabelledArrays(images=pixels, labels=np.arange(400) % 4)}
    listing = ArrayListing(class_names=tuple("abcd"), arrays=arrays)
    return make_splits(load_listing(listing, Storage()), SplitPlan(calibration_images=64))


# Which


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which is then the one to take")
def test_without_a_gpu_auto_is_the_processor_and_cuda_is_refused_with_the_remedy():
    assert take_device() == take_device("cpu") == torch.device("cpu")
    for wanted in ("cuda", "cuda:3"):
        with pytest.raises(InvalidRequestError, match=f"'{wanted}' is not there.*choose auto or cpu"):
            take_device(wanted)


@pytest.mark.parametrize("wanted", ["gpu", "", "cuda:x", "cuda:-1", "mps", "CPU"])
def test_what_is_no_device_is_refused_with_what_is(wanted):
    with pytest.raises(InvalidRequestError, match="is not auto, cpu, cuda or cuda:<number>"):
        take_device(wanted)


@pytest.fixture
def digits_as_before():
    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    yield
    for switch, allowed in zip(switches, before, strict=True):
        switch.allow_tf32 = allowed


def test_the_gpu_that_is_there_is_taken_and_keeps_all_digits_of_float32(monkeypatch, digits_as_before):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    assert take_device() == take_device("cuda") == torch.device("cuda", 0)
    assert take_device("cuda:1") == torch.device("cuda", 1)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    with pytest.raises(InvalidRequestError, match=r"'cuda:2' is not there: .* finds 2 CUDA devices"):
        take_device("cuda:2")


def test_a_gpu_holds_images_in_half_of_what_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 5000))
    assert room_bytes(torch.device("cuda", 0)) == 500
    assert room_bytes(torch.device("cpu")) == 0


def test_a_gpu_is_named_with_its_libraries_and_not_said_to_repeat_its_bits(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    assert machine_of(torch.device("cuda", 0))["device"].startswith("A GPU, CUDA ")
    assert machine_of(torch.device("cpu"))["device"] == "cpu"
    assert repeats_bits(torch.device("cpu"))
    assert not repeats_bits(torch.device("cuda", 0))


# Images on the device


@pytest.fixture
def roomy(monkeypatch):
    """As if the processor were a device with memory of its own."""
    for module in ("batches", "preprocess"):
        monkeypatch.setattr(f"supernet.data.{module}.room_bytes", lambda device: 2**40)
    monkeypatch.setattr("supernet.data.batches._PIECE_IMAGES", 33)


def test_batches_from_images_kept_on_a_device_are_those_from_the_shared_map(splits, roomy, monkeypatch):
    kept = TrainingBatches(splits, 16, 5, VARIED, held_out_fraction=0.1)
    assert kept._pixels.data_ptr() != splits.train.pixels.ctypes.data
    assert len(kept._pixels) == len(splits.train)
    assert kept._pixels.dtype == torch.uint8
    monkeypatch.undo()
    shared = TrainingBatches(splits, 16, 5, VARIED, held_out_fraction=0.1)
    assert shared._pixels.data_ptr() == splits.train.pixels.ctypes.data
    positions = np.arange(16)[::-1] * 3
    for ours, theirs in (
        (kept.batch(3), shared.batch(3)),
        (kept.batch(3, 1, 2, positions=positions), shared.batch(3, 1, 2, positions=positions)),
        (kept.held_out(2), shared.held_out(2)),
    ):
        assert torch.equal(ours[0], theirs[0])
        assert ours[0].stride() == theirs[0].stride()
        assert torch.equal(ours[1], theirs[1])


def test_images_too_many_for_a_device_stay_where_they_are(splits, monkeypatch):
    num_bytes = len(splits.train) * 3 * 12 * 12
    for room, is_kept in ((num_bytes, True), (num_bytes - 1, False)):
        monkeypatch.setattr("supernet.data.batches.room_bytes", lambda device, room=room: room)
        batches = TrainingBatches(splits, 16, 5, VARIED)
        assert (batches._pixels.data_ptr() != splits.train.pixels.ctypes.data) == is_kept


# A stand-in for a GPU: it has no numbers, but refuses tensors that lie elsewhere, as CUDA does.

STAND_IN = torch.device("lazy")


@pytest.fixture
def stand_in():
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


def made_there(space):
    with STAND_IN:
        return Supernet(SPACES[space], num_classes=4)


def test_the_stand_in_refuses_tensors_of_the_processor(stand_in):
    there = torch.zeros(3, device=STAND_IN)
    for mixed in (lambda: there + torch.zeros(3), lambda: there.gather(0, torch.arange(3))):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()


def test_a_batch_is_made_on_the_device_from_its_bytes(stand_in):
    pixels = torch.zeros(16, 3, 12, 12, dtype=torch.uint8, device=STAND_IN)
    shifts = draw_shifts(VARIED, 16, np.random.default_rng(0))
    images = crop_and_flip(standardise(pixels, [0.5] * 3, [0.2] * 3), shifts.to(STAND_IN), 2)
    assert to_channels_last(images).device.type == STAND_IN.type
    assert images.dtype == torch.float32


@pytest.mark.parametrize("space", sorted(SPACES))
def test_a_step_makes_no_tensor_on_another_device(stand_in, space):
    supernet = made_there(space).train()
    gradients = FlatGradients(supernet, num_own=1, num_scores=4)
    gradients.start()
    images = torch.zeros(4, 3, 32, 32, device=STAND_IN)
    labels = torch.zeros(4, dtype=torch.int64, device=STAND_IN)
    batch_loss = SoftDistillation(label_smoothing=0.1).for_batch(images, labels)
    ends = {Role.MAX: supernet.space.largest(), Role.MIN: supernet.space.smallest()}
    for place, (role, architecture) in enumerate(ends.items()):
        losses_n = batch_loss(slot_in(role), supernet(images, architecture))
        gradients.losses[place] = losses_n.detach().sum()
        gradients.add(place, gradients.of(losses_n.sum()))
    gradients.merge([0.5])
    assert gradients.values.device.type == STAND_IN.type


@pytest.mark.parametrize("space", sorted(SPACES))
def test_measuring_makes_no_tensor_on_another_device(stand_in, space):
    supernet = made_there(space).eval()
    images = torch.zeros(4, 3, 32, 32, device=STAND_IN)
    for architecture in (supernet.space.largest(), supernet.space.smallest()):
        statistics = recalibrate(supernet, architecture, [images, images])
        assert supernet(images, architecture, statistics).device.type == STAND_IN.type
        assert supernet(images, architecture).device.type == STAND_IN.type


def test_resized_images_are_the_same_wherever_they_are_kept(splits, roomy, monkeypatch):
    kept = ResizedSplits(splits).images(Split.VAL, 8)
    monkeypatch.undo()
    assert torch.equal(kept, ResizedSplits(splits).images(Split.VAL, 8))
