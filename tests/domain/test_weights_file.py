"""The network in a bundle: its bytes are those that the card names, or it is refused."""

from __future__ import annotations

import hashlib
import io

import pytest

from nas.weights_file import WeightsFileError, describe_weights, read_network
from tests.api.weights import SPACE, bundle_file, card, supernet_file

NETWORK = bytes(range(256)) * 100


def bundle(content=NETWORK, *, sha256=None):
    digest = sha256 or hashlib.sha256(NETWORK).hexdigest()
    told = card(files={"model.safetensors": {"sha256": digest, "size_bytes": len(NETWORK)}})
    return bundle_file({"card.json": told, "model.safetensors": content})


def test_the_network_of_a_bundle_is_read_as_it_was_packed():
    assert read_network(io.BytesIO(bundle()), max_bytes=len(NETWORK)) == NETWORK


def test_a_description_tells_what_was_told_of_it():
    found = describe_weights(io.BytesIO(bundle()))
    assert SPACE.parse(dict(found.architecture)) == SPACE.smallest()
    assert (found.space_fingerprint, found.num_classes, found.recipe) == (None, 10, "bignas")
    assert describe_weights(io.BytesIO(supernet_file())).architecture is None


def test_another_network_than_the_card_s_is_refused():
    with pytest.raises(WeightsFileError, match=r"not those that card.json names"):
        read_network(io.BytesIO(bundle(NETWORK[:-1] + b"!")), max_bytes=len(NETWORK))


def test_a_zip_that_unpacks_to_more_than_there_can_be_is_refused_before_it_is_unpacked():
    bomb = bundle(bytes(50_000_000))
    assert len(bomb) < 100_000
    with pytest.raises(WeightsFileError, match=r"in the zip is larger than the 25600 bytes"):
        read_network(io.BytesIO(bomb), max_bytes=len(NETWORK))


def test_every_byte_of_the_packed_network_counts():
    packed = bytearray(bundle())
    place = packed.index(b"model.safetensors") + len(b"model.safetensors") + 50
    for offset in range(0, 60, 7):
        damaged = bytearray(packed)
        damaged[place + offset] ^= 0xFF
        with pytest.raises(WeightsFileError, match=r"damaged|not those"):
            read_network(io.BytesIO(bytes(damaged)), max_bytes=len(NETWORK))
