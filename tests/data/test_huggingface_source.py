"""Hugging Face directories in their three ways, and tables of labels beside image files."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from containers import IMAGE_TYPE, encode, write_folder, write_parquet, write_saved

from nas.errors import DatasetError
from supernet.data.huggingface import open_huggingface
from supernet.data.listing import GivenSplit
from supernet.data.parquet import ParquetColumns

COLUMNS = ParquetColumns(image="image", label="label")
GREY = encode(np.full((1, 4, 4), 90, dtype=np.uint8))


def opened(root, **columns):
    return open_huggingface(root, ParquetColumns(**({"image": "image", "label": "label"} | columns)))


def places(listing):
    return [(image.split, listing.class_names[image.label], image.where) for image in listing.images()]


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(GREY)
    return root


def test_a_saved_data_set_is_read_shard_after_shard(tmp_path, data_kit):
    images = data_kit.random_set(60)
    listing = opened(write_saved(tmp_path / "saved", images))
    assert listing.class_names == images.class_names
    assert listing.splits == (GivenSplit.TRAIN,)
    found = list(listing.images())
    assert [image.label for image in found] == images.labels.tolist()
    assert [image.content for image in found] == [encode(pixels) for pixels in images.images]
    assert found[-1].where == f"row {len(images) - len(images) // 2 - 1} of data-00001-of-00002.arrow"


def test_the_parts_of_a_saved_dictionary_are_splits_and_others_are_not_read(tmp_path, data_kit):
    images = data_kit.random_set(30)
    for name in ("train", "validation", "test", "unsupervised"):
        write_saved(tmp_path / name, images)
    (tmp_path / "dataset_dict.json").write_text(
        json.dumps({"splits": ["unsupervised", "test", "validation", "train"]})
    )
    listing = opened(tmp_path)
    assert listing.splits == tuple(GivenSplit)
    assert len(places(listing)) == 3 * len(images)
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["test", "unsupervised"]}))
    with pytest.raises(DatasetError, match="parts test, unsupervised but no 'train'"):
        opened(tmp_path)


def test_columns_of_other_names_are_found_where_there_is_only_one(tmp_path, data_kit):
    images = data_kit.random_set(30)
    root = write_saved(tmp_path / "saved", images)
    info = json.loads((root / "dataset_info.json").read_text())
    for path in root.glob("*.arrow"):
        table = pa.ipc.open_stream(path.read_bytes()).read_all().rename_columns(["img", "fine"])
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    features = {"img": info["features"]["image"], "fine": info["features"]["label"]}
    (root / "dataset_info.json").write_text(json.dumps({"features": features}))
    assert [image.label for image in opened(root).images()] == images.labels.tolist()
    features["coarse"] = features["fine"]
    (root / "dataset_info.json").write_text(json.dumps({"features": features}))
    with pytest.raises(
        DatasetError, match=r"not one only of type ClassLabel.* img, fine, coarse.*label_column"
    ):
        opened(root)
    assert opened(root, label="fine").class_names == images.class_names


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("state.json", "{", r"state\.json cannot be read as JSON"),
        ("state.json", "[]", "is no JSON object"),
        ("state.json", "{}", "names no data files"),
        (
            "state.json",
            '{"_data_files": [{"filename": "../a.arrow"}]}',
            r"'\.\./a\.arrow', which is no file beside it",
        ),
        ("state.json", '{"_data_files": [], "_indices_data_files": [1]}', "flatten_indices"),
        ("dataset_info.json", None, r"dataset_info\.json cannot be read"),
        ("dataset_info.json", '{"features": 3}', "has no column 'image'"),
        ("data-00001-of-00002.arrow", "no arrow", "cannot be read as an Arrow stream"),
    ],
)
def test_a_damaged_saved_data_set_is_told(tmp_path, data_kit, name, content, message):
    root = write_saved(tmp_path / "saved", data_kit.random_set(30))
    (root / name).unlink()
    if content is not None:
        (root / name).write_text(content)
    with pytest.raises(DatasetError, match=message):
        opened(root)


@pytest.mark.parametrize("label", [4, -1, None])
def test_a_label_that_is_no_class_is_named_by_its_row(tmp_path, data_kit, label):
    root = write_saved(tmp_path / "saved", data_kit.random_set(30))
    path = root / "data-00000-of-00002.arrow"
    table = pa.table({"image": pa.array([{"bytes": GREY}] * 3, IMAGE_TYPE), "label": pa.array([0, 1, label])})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DatasetError, match=r"row 2 of .*00000"):
        opened(root)


@pytest.mark.parametrize(
    "names",
    [
        ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"),
        ("data/train-00000-of-00001", "data/test-00000-of-00001"),
        ("plain/train-00000-of-00001", "plain/test-00000-of-00001", "README"),
        ("default/train/0000", "default/test/0000"),
        ("train", "test", "extra-00000-of-00001"),
    ],
)
def test_the_parquet_files_of_a_repository_are_found(tmp_path, data_kit, names):
    images = data_kit.random_set(30)
    for name in names:
        write_parquet(tmp_path / f"{name}.parquet", images)
    (tmp_path / "README.md").write_text("a card")
    listing = opened(tmp_path)
    assert listing.splits == (GivenSplit.TRAIN, GivenSplit.TEST)
    read = {where.rpartition(" of ")[2] for _, _, where in places(listing)}
    assert read == {f"{name}.parquet" for name in names if "train" in name or "test" in name}


def test_a_single_parquet_file_is_train_whatever_its_name(tmp_path, data_kit):
    write_parquet(tmp_path / "photos.parquet", data_kit.random_set(30))
    listing = opened(tmp_path)
    assert listing.splits == (GivenSplit.TRAIN,)
    assert len(places(listing)) == 30
    write_parquet(tmp_path / "more.parquet", data_kit.random_set(30))
    with pytest.raises(DatasetError, match="is named as train"):
        opened(tmp_path)


def test_parquet_of_two_configurations_or_without_train_is_refused(tmp_path, data_kit):
    write_parquet(tmp_path / "b" / "test.parquet", data_kit.random_set(30))
    with pytest.raises(DatasetError, match="is named as train"):
        opened(tmp_path)
    for name in "ab":
        write_parquet(tmp_path / name / "train-00000-of-00001.parquet", data_kit.random_set(30))
    with pytest.raises(DatasetError, match="several folders"):
        opened(tmp_path)
    assert opened(tmp_path / "b").splits == (GivenSplit.TRAIN, GivenSplit.TEST)


def test_a_snapshot_of_the_cache_may_link_to_its_blobs_and_nowhere_else(tmp_path, data_kit):
    snapshot = tmp_path / "datasets--a--b" / "snapshots" / "0123"
    blob = write_parquet(tmp_path / "datasets--a--b" / "blobs" / "abc", data_kit.random_set(30))
    (snapshot / "data").mkdir(parents=True)
    link = snapshot / "data" / "train-00000-of-00001.parquet"
    link.symlink_to(blob)
    assert len(places(opened(snapshot))) > 0
    link.unlink()
    link.symlink_to(write_parquet(tmp_path / "elsewhere.parquet", data_kit.random_set(30)))
    with pytest.raises(DatasetError, match="leads out of the folder"):
        opened(snapshot)


def write_table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        names = list(rows[0])
        path.write_text(
            "\n".join([",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)])
        )
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_table_of_labels_beside_the_images_gives_their_classes(tmp_path, suffix):
    put(tmp_path, "1.png", "deep/2.png", "3.png")
    rows = [
        {"file_name": name, "label": label}
        for name, label in (("1.png", "dog"), ("deep/2.png", "cat"), ("3.png", "dog"))
    ]
    write_table(tmp_path / f"metadata.{suffix}", rows)
    listing = opened(tmp_path)
    assert listing.class_names == ("cat", "dog")
    assert places(listing) == [
        ("train", "dog", "1.png"),
        ("train", "cat", "deep/2.png"),
        ("train", "dog", "3.png"),
    ]


def test_labels_that_are_numbers_are_sorted_as_numbers(tmp_path):
    put(tmp_path, *(f"{number}.png" for number in range(12)))
    write_table(tmp_path / "metadata.csv", [{"file_name": f"{n}.png", "label": n} for n in range(12)])
    assert opened(tmp_path).class_names == tuple(str(number) for number in range(12))


@pytest.mark.parametrize("one_table", [True, False])
def test_tables_of_labels_know_train_and_test(tmp_path, one_table):
    put(tmp_path, *(f"{split}/{number}.png" for split in ("train", "test") for number in range(2)))
    names = ("cat", "dog")
    if one_table:
        rows = [{"file_name": f"{s}/{n}.png", "label": names[n]} for s in ("train", "test") for n in range(2)]
        write_table(tmp_path / "metadata.csv", rows)
    else:
        for split in ("train", "test"):
            rows = [{"file_name": f"{n}.png", "animal": names[n]} for n in range(2)]
            write_table(tmp_path / split / "metadata.jsonl", rows)
    listing = opened(tmp_path) if one_table else opened(tmp_path, label="animal")
    assert listing.class_names == names
    assert sorted(places(listing)) == [
        ("test", "cat", "test/0.png"),
        ("test", "dog", "test/1.png"),
        ("train", "cat", "train/0.png"),
        ("train", "dog", "train/1.png"),
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"file_name": "1.png", "label": "a"}], r"1 images have no row in .*the first is .*2\.png"),
        (
            [{"file_name": "1.png", "label": "a"}, {"file_name": "2.png", "label": ""}],
            "row 1 .* has no 'label'",
        ),
        (
            [{"file_name": "1.png", "kind": "a"}],
            r"row 0 .* has no 'label' \(its columns are file_name, kind\)",
        ),
        ([{"name": "1.png", "label": "a"}], "has no 'file_name'"),
        ([{"file_name": "../1.png", "label": "a"}], r"without '\.\.'"),
        ([{"file_name": "/etc/passwd", "label": "a"}], "below its own folder"),
    ],
)
def test_a_table_that_does_not_fit_its_images_is_refused(tmp_path, rows, message):
    put(tmp_path, "1.png", "2.png")
    write_table(tmp_path / "metadata.csv", rows)
    with pytest.raises(DatasetError, match=message):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", b"\xff\xfe", "cannot be read .* as UTF-8"),
        ("metadata.jsonl", b"[1]", "no JSON object"),
        ("metadata.parquet", b"no parquet", "cannot be read"),
    ],
)
def test_a_damaged_table_is_told(tmp_path, name, content, message):
    put(tmp_path, "1.png")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        opened(tmp_path)


def test_class_folders_are_a_hugging_face_directory_too(tmp_path, data_kit):
    images = data_kit.random_set(30)
    assert opened(write_folder(tmp_path / "pets", images)).class_names == images.class_names


def test_a_file_is_no_directory(tmp_path):
    with pytest.raises(DatasetError, match="is no folder"):
        opened(put(tmp_path, "a.png") / "a.png")
