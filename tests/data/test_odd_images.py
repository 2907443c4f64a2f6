"""Images as people really have them: read by stated rules, or refused with a sentence."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from supernet.data.decode import (
    MAX_FILE_BYTES,
    MAX_IMAGE_PIXELS,
    ImageShape,
    UnreadableImageError,
    decode_image,
    read_header,
)
from supernet.data.listing import GivenSplit, SourceImage


def image_of(content):
    return SourceImage(split=GivenSplit.TRAIN, label=0, where="cat/001.jpg", content=content)


def saved(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(content):
    """(header, pixels at the image's own size)."""
    image = image_of(content)
    header = read_header(image)
    pixels = decode_image(image, ImageShape(header.num_channels, header.height, header.width))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    return header, pixels


def refusal(content):
    """What both passes say; a header may be fine where the pixels are not."""
    image = image_of(content)
    with pytest.raises(UnreadableImageError) as caught:
        header = read_header(image)
        decode_image(image, ImageShape(3, header.height, header.width))
    assert caught.value.where == "cat/001.jpg"
    assert str(caught.value).startswith("cat/001.jpg ")
    return str(caught.value)


def random_pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def smooth_picture():
    """Compresses to something, in every format."""
    return Image.fromarray(random_pixels(6, 6, 3)).resize((48, 40))


def png(width, height, bits, colour_type, rows, *more_chunks):
    """A PNG made by hand: Pillow writes no 16-bit colour."""

    def chunk(name, content):
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    head = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [
        chunk(b"IHDR", head),
        *(chunk(*each) for each in more_chunks),
        chunk(b"IDAT", body),
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("TIFF", {}),
    ],
)
def test_a_file_cut_anywhere_is_refused_and_never_half_grey(kind, options):
    whole = saved(smooth_picture(), kind, **options)
    _, pixels = decoded(whole)
    refused = 0
    for length in range(0, len(whole), 7):
        try:
            _, cut = decoded(whole[:length])
        except UnreadableImageError:
            refused += 1
        else:
            assert np.array_equal(cut, pixels)  # only an end mark was lost
    assert refused > 0.95 * len(whole) / 7


def test_a_png_with_one_damaged_byte_is_refused_or_read_as_it_was():
    whole = saved(smooth_picture(), "PNG")
    _, pixels = decoded(whole)
    refused = 0
    for place in range(0, len(whole), 11):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        try:
            _, read = decoded(bytes(damaged))
        except UnreadableImageError:
            refused += 1
        else:
            assert np.array_equal(read, pixels)
    assert refused > 0.9 * len(whole) / 11


def test_of_16_bits_grey_or_rgb_the_upper_8_are_kept():
    deep = np.random.default_rng(0).integers(0, 65536, (5, 4, 3)).astype(">u2")
    header, pixels = decoded(png(4, 5, 16, 2, [row.tobytes() for row in deep]))
    assert header.num_channels == 3
    assert np.array_equal(pixels, (deep >> 8).transpose(2, 0, 1))
    grey = np.ascontiguousarray(deep[..., 0])
    header, pixels = decoded(png(4, 5, 16, 0, [row.tobytes() for row in grey]))
    assert header.num_channels == 1
    assert np.array_equal(pixels[0], grey >> 8)
    assert pixels.dtype == np.uint8


def test_16_bits_that_repeat_8_come_back_as_those_8():
    shallow = random_pixels(6, 5)
    deep = shallow.astype(">u2") * 257
    _, pixels = decoded(png(5, 6, 16, 0, [row.tobytes() for row in deep]))
    assert np.array_equal(pixels[0], shallow)


def test_the_transparent_colour_of_a_16_bit_png_becomes_white():
    deep = np.array([[[40000, 300, 7], [1000, 2000, 3000]]], dtype=">u2")
    key = (b"tRNS", deep[0, 0].tobytes())
    _, pixels = decoded(png(2, 1, 16, 2, [deep.tobytes()], key))
    assert pixels[:, 0, 0].tolist() == [255, 255, 255]
    assert pixels[:, 0, 1].tolist() == [1000 >> 8, 2000 >> 8, 3000 >> 8]
    grey = np.array([[40000, 40001]], dtype=">u2")
    _, pixels = decoded(png(2, 1, 16, 0, [grey.tobytes()], (b"tRNS", grey[0, :1].tobytes())))
    assert pixels.ravel().tolist() == [255, 40001 >> 8]


def test_what_is_transparent_shows_white():
    pixels = random_pixels(4, 3, 4)
    pixels[..., 3] = [255, 0, 128]
    header, read = decoded(saved(Image.fromarray(pixels), "PNG"))
    assert header.num_channels == 3
    assert np.array_equal(read[:, :, 0], pixels[:, 0, :3].T)
    assert (read[:, :, 1] == 255).all()
    half = (pixels[:, 2, :3].T * (128 / 255) + 255 * (127 / 255)).round()
    assert np.abs(read[:, :, 2] - half).max() <= 1


def test_grey_with_alpha_stays_one_channel():
    grey = random_pixels(4, 4)
    alpha = np.full((4, 4), 255, dtype=np.uint8)
    alpha[0] = 0
    picture = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
    header, read = decoded(saved(picture, "PNG"))
    assert header.num_channels == 1
    assert (read[0, 0] == 255).all()
    assert np.array_equal(read[0, 1:], grey[1:])


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palette_is_colour_and_its_transparent_entry_white(kind):
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([10, 20, 30, 40, 50, 60] + [0] * 762)
    picture.putpixel((1, 2), 1)
    header, plain = decoded(saved(picture, kind))
    assert header.num_channels == 3
    assert plain[:, 2, 1].tolist() == [40, 50, 60]
    assert plain[:, 0, 0].tolist() == [10, 20, 30]
    _, pierced = decoded(saved(picture, kind, transparency=0))
    assert pierced[:, 2, 1].tolist() == [40, 50, 60]
    assert pierced[:, 0, 0].tolist() == [255, 255, 255]


def test_black_and_white_is_grey_of_0_and_255():
    picture = Image.fromarray(random_pixels(5, 9) > 127)
    header, read = decoded(saved(picture, "PNG"))
    assert header.num_channels == 1
    assert np.array_equal(read[0] == 255, np.asarray(picture))
    assert set(np.unique(read)) == {0, 255}


def test_cmyk_is_read_with_adobes_inversion_where_adobe_marks_it():
    cyan = Image.merge("CMYK", [Image.new("L", (16, 16), ink) for ink in (200, 0, 0, 0)])
    marked = saved(cyan, "JPEG", quality=95)
    header, read = decoded(marked)
    assert header.num_channels == 3
    assert read[:, 5, 5].tolist() == pytest.approx([55, 255, 255], abs=3)
    # Without the mark the stored numbers are the inks themselves: here the complement of what was inverted.
    start = marked.index(b"\xff\xee")
    length = 2 + struct.unpack(">H", marked[start + 2 : start + 4])[0]
    unmarked = marked[:start] + marked[start + length :]
    _, read = decoded(unmarked)
    assert read[:, 5, 5].tolist() == pytest.approx([0, 0, 0], abs=3)  # black ink 255


def test_ycbcr_is_read_as_its_colours():
    picture = Image.new("RGB", (16, 16), (200, 40, 90))
    for content in (saved(picture, "JPEG", quality=95), saved(picture.convert("YCbCr"), "TIFF")):
        header, read = decoded(content)
        assert header.num_channels == 3
        assert read[:, 8, 8].tolist() == pytest.approx([200, 40, 90], abs=4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_every_exif_orientation_is_set_upright(kind, orientation):
    upright = np.zeros((16, 32), dtype=np.uint8)
    upright[:8, :8] = 255  # one bright corner, top left
    # How a camera in that orientation stores it: the turns below undo the orientation's meaning.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(np.ascontiguousarray(stored))
    header, read = decoded(saved(picture, kind, exif=exif))
    assert (header.width, header.height) == (32, 16)
    assert read[0, 1:7, 1:7].min() > 230
    assert read[0, 9:].max() < 25
    assert read[0, :, 9:].max() < 25


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0II*\0", b"no exif at all", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02"]
)
def test_a_damaged_exif_block_costs_the_orientation_and_not_the_image(exif):
    picture = Image.new("RGB", (8, 4), (9, 9, 9))
    header, read = decoded(saved(picture, "JPEG", exif=exif))
    assert (header.width, header.height) == (8, 4)
    assert read.shape == (3, 4, 8)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_picture_is_read(kind):
    frames = [Image.new("RGB", (6, 6), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    _, read = decoded(saved(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert read[:, 3, 3].tolist() == [255, 0, 0]


def test_one_pixel_is_an_image_and_grows_to_the_common_size():
    content = saved(Image.new("RGB", (1, 1), (7, 8, 9)), "PNG")
    header, read = decoded(content)
    assert (header.width, header.height) == (1, 1)
    assert read.ravel().tolist() == [7, 8, 9]
    grown = decode_image(image_of(content), ImageShape(3, 5, 4))
    assert (grown == np.array([7, 8, 9]).reshape(3, 1, 1)).all()


@pytest.mark.parametrize("side", [4097, 10_000, 20_000])
def test_an_image_of_too_many_pixels_is_refused_by_its_header_alone(side):
    # The header promises what the file does not hold: nothing but the header is looked at.
    sentence = refusal(png(side, side, 8, 2, [b""]))
    assert str(MAX_IMAGE_PIXELS) in sentence
    assert "resize it" in sentence
    assert (str(side * side) if side == 20_000 else f"{side}x{side}") in sentence


def test_the_largest_image_allowed_is_read():
    header, read = decoded(saved(Image.new("L", (4096, 4096), 3), "PNG"))
    assert header.width == header.height == 4096
    assert read.min() == read.max() == 3


def test_floats_are_refused():
    sentence = refusal(saved(Image.fromarray(np.ones((4, 4), dtype=np.float32)), "TIFF"))
    assert "mode F" in sentence
    assert "8 bits" in sentence


def test_an_empty_file_a_text_and_a_missing_one_are_told_apart():
    assert "is empty" in refusal(b"")
    sentence = refusal(b"hello, I am a shopping list")
    assert "none of PNG, JPEG, WEBP, BMP, GIF, TIFF" in sentence
    assert "object at 0x" not in sentence
    assert "no bytes, only a path" in refusal(None)


def test_a_huge_file_is_refused_by_its_length():
    assert "MiB" in refusal(bytes(MAX_FILE_BYTES + 1))


def test_what_a_file_holds_counts_and_not_its_name():
    pixels = random_pixels(5, 4, 3)
    _, read = decoded(saved(Image.fromarray(pixels), "PNG"))  # named 001.jpg
    assert np.array_equal(read, pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 3)])
def test_pixels_are_taken_as_they_are(shape):
    pixels = random_pixels(*shape)
    header, read = decoded(pixels)
    assert header.num_channels == read.shape[0] == (3 if shape[2:] == (3,) else 1)
    assert np.array_equal(read, pixels.reshape(5, 4, -1).transpose(2, 0, 1))


@pytest.mark.parametrize("pixels", [np.zeros((0, 4), dtype=np.uint8), np.zeros((4097, 4096), dtype=np.uint8)])
def test_pixels_without_or_beyond_a_size_are_refused(pixels):
    assert "pixels" in refusal(pixels)


def test_greyscale_becomes_three_equal_channels_where_others_are_colour():
    grey = random_pixels(4, 4)
    read = decode_image(image_of(saved(Image.fromarray(grey), "PNG")), ImageShape(3, 4, 4))
    assert all(np.array_equal(channel, grey) for channel in read)
