"""Class folders: what is listed, what is ignored, what is refused."""

import os

import numpy as np
import pytest
from containers import encode, write_folder

from nas.errors import DatasetError
from supernet.data.decode import UnreadableImageError, read_header
from supernet.data.folder import open_folder
from supernet.data.listing import GivenSplit

GREY = encode(np.full((1, 4, 4), 90, dtype=np.uint8))


def put(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(GREY)
    return root


def places(listing):
    return [(image.split, listing.class_names[image.label], image.where) for image in listing.images()]


def test_classes_are_the_folders_sorted_and_images_lie_at_any_depth(tmp_path):
    put(tmp_path, "eel/2.png", "cat/b/c/1.PNG", "cat/a.png", "Ant/1.jpeg", "cat/b/0.jpg")
    listing = open_folder(tmp_path)
    assert listing.class_names == ("Ant", "cat", "eel")
    assert listing.splits == (GivenSplit.TRAIN,)
    expected = ["Ant/1.jpeg", "cat/a.png", "cat/b/0.jpg", "cat/b/c/1.PNG", "eel/2.png"]
    assert [where for _, _, where in places(listing)] == expected
    assert places(listing) == places(listing)


def test_hidden_files_and_files_that_are_no_pictures_are_ignored(tmp_path):
    put(tmp_path, "cat/1.png", "dog/1.png", "cat/.DS_Store", "cat/Thumbs.db", "cat/._1.png", ".git/x/1.png")
    put(tmp_path, "cat/labels.csv", "dog/notes.txt", "README.md", "__MACOSX/cat/1.png", "dog/.cache/1.png")
    listing = open_folder(tmp_path)
    assert [where for _, _, where in places(listing)] == ["cat/1.png", "dog/1.png"]


def test_a_text_named_jpg_and_a_picture_of_no_known_format_are_unreadable_not_left_out(tmp_path):
    put(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "dog" / "2.jpg").write_text("no picture")
    (tmp_path / "dog" / "3.heic").write_bytes(b"\0\0\0\x18ftypheic")
    by_place = {image.where: image for image in open_folder(tmp_path).images()}
    read_header(by_place["dog/1.png"])
    for where in ("dog/2.jpg", "dog/3.heic"):
        with pytest.raises(UnreadableImageError, match=where):
            read_header(by_place[where])


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train", "test"), (GivenSplit.TRAIN, GivenSplit.TEST)),
        (("test", "train", "val"), tuple(GivenSplit)),
        (("Train", "validation"), (GivenSplit.TRAIN, GivenSplit.VAL)),
        (("training", "valid", "testing"), tuple(GivenSplit)),
    ],
)
def test_given_splits_are_found_by_their_usual_names(tmp_path, names, splits):
    for name in names:
        put(tmp_path, f"{name}/cat/1.png", f"{name}/dog/1.png")
    listing = open_folder(tmp_path)
    assert listing.class_names == ("cat", "dog")
    assert listing.splits == splits
    assert sorted({split for split, _, _ in places(listing)}) == sorted(splits)
    assert len(places(listing)) == 2 * len(splits)


def test_a_class_may_be_called_train(tmp_path):
    put(tmp_path, "train/1.png", "bus/1.png", "test/2.png")
    listing = open_folder(tmp_path)
    assert listing.class_names == ("bus", "test", "train")
    assert listing.splits == (GivenSplit.TRAIN,)


def test_a_split_may_lack_a_class_but_not_bring_one(tmp_path):
    put(tmp_path, "train/cat/1.png", "train/dog/1.png", "val/cat/1.png")
    assert open_folder(tmp_path).class_names == ("cat", "dog")
    put(tmp_path, "val/eel/1.png")
    with pytest.raises(DatasetError, match=r"val holds the class folders eel, .* train \(cat, dog\)"):
        open_folder(tmp_path)


def test_an_empty_class_folder_is_refused_by_name(tmp_path):
    put(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "eel").mkdir()
    with pytest.raises(DatasetError, match=r"class folder .*/eel holds no images; put images into it"):
        open_folder(tmp_path)
    put(tmp_path, "eel/a.txt", "eel/deep/b.txt")
    with pytest.raises(DatasetError, match=r"/eel holds no images \(the 2 other files in it are ignored\)"):
        open_folder(tmp_path)


def test_one_class_only_is_refused_and_the_folder_below_suggested(tmp_path):
    put(tmp_path, "pets/cat/1.png", "pets/dog/1.png")
    with pytest.raises(DatasetError, match=r"one class folder only, 'pets'.*give the path of that folder"):
        open_folder(tmp_path)
    assert open_folder(tmp_path / "pets").class_names == ("cat", "dog")


def test_images_beside_the_class_folders_are_refused(tmp_path):
    put(tmp_path, "cat/1.png", "dog/1.png", "stray.png", "other.png")
    with pytest.raises(DatasetError, match=r"other\.png lies beside the class folders.* the 2 such images"):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "holds no class folders"),
        (("1.png", "2.png"), "holds no class folders"),
        (("test/cat/1.png", "test/dog/1.png"), "give train, val and test"),
        (("train/cat/1.png", "train/dog/1.png", "extra/cat/1.png"), "extra.*move or rename the rest"),
        (("train/cat/1.png", "val/cat/1.png", "valid/cat/1.png"), "both name the split 'val'"),
    ],
)
def test_other_layouts_are_refused_with_what_is_allowed(tmp_path, names, message):
    with pytest.raises(DatasetError, match=message):
        open_folder(put(tmp_path, *names))


def test_links_that_leave_the_folder_are_refused_and_others_followed(tmp_path):
    outside = put(tmp_path / "outside", "secret.png", "more/1.png")
    root = put(tmp_path / "data", "cat/1.png", "dog/1.png")
    (root / "dog" / "same.png").symlink_to(root / "cat" / "1.png")
    assert [where for _, _, where in places(open_folder(root))] == ["cat/1.png", "dog/1.png", "dog/same.png"]
    for name, target in (
        ("dog/2.png", outside / "secret.png"),
        ("dog/more", outside / "more"),
        ("eel", outside),
    ):
        (root / name).symlink_to(target)
        with pytest.raises(DatasetError, match=rf"{name} is a link that leads out of the folder"):
            open_folder(root)
        (root / name).unlink()
    (root / "dog" / "up").symlink_to(root / "dog")
    with pytest.raises(DatasetError, match="leads into a folder that holds it"):
        open_folder(root)


def test_a_link_to_nothing_is_an_unreadable_image(tmp_path):
    root = put(tmp_path, "cat/1.png", "dog/1.png")
    (root / "dog" / "2.png").symlink_to(root / "gone.png")
    image = {image.where: image for image in open_folder(root).images()}["dog/2.png"]
    with pytest.raises(UnreadableImageError, match=r"dog/2\.png .*no bytes"):
        read_header(image)


def test_a_pipe_is_never_waited_for(tmp_path):
    put(tmp_path, "cat/1.png", "dog/1.png")
    os.mkfifo(tmp_path / "dog" / "2.png")
    assert len(places(open_folder(tmp_path))) == 2


def test_names_that_are_no_utf8_are_told(tmp_path):
    put(tmp_path, "cat/1.png", "dog/1.png")
    odd = os.fsencode(tmp_path / "dog") + b"/\xff.png"
    with open(odd, "wb") as file:  # noqa: PTH123 - a Path holds no such bytes
        file.write(GREY)
    for _, _, where in places(open_folder(tmp_path)):
        where.encode()
    os.mkdir(os.fsencode(tmp_path) + b"/\xfe")  # noqa: PTH102 - as above
    with open(os.fsencode(tmp_path) + b"/\xfe/1.png", "wb") as file:  # noqa: PTH123 - as above
        file.write(GREY)
    with pytest.raises(DatasetError, match="no name in UTF-8"):
        open_folder(tmp_path)


def test_a_missing_folder_and_a_file_are_told_apart(tmp_path, data_kit):
    write_folder(tmp_path / "a", data_kit.random_set(30))
    with pytest.raises(DatasetError, match="is no folder"):
        open_folder(tmp_path / "a" / "cat" / "0000.png")


def test_the_walk_can_be_stopped(tmp_path):
    class StopError(Exception):
        pass

    def stop():
        raise StopError

    with pytest.raises(StopError):
        open_folder(put(tmp_path, "cat/1.png", "dog/1.png"), stop)
