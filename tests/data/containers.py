"""The same images written as every kind of source; shared by the tests of sources."""

import io
import json
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encode(pixels, kind="PNG", **options):
    """(c, h, w) pixels as the bytes of an image file."""
    array = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, kind, **options)
    return buffer.getvalue()


def write_folder(root, images, prefix=""):
    """Class folders of PNG files."""
    for number, (pixels, label) in enumerate(zip(images.images, images.labels.tolist(), strict=True)):
        path = root / images.class_names[label] / f"{prefix}{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(pixels))
    return root


def write_npz(path, images, **options):
    """Channels last, as most people have them."""
    pixels = images.images[:, 0] if images.images.shape[1] == 1 else images.images.transpose(0, 2, 3, 1)
    np.savez_compressed(
        path,
        images=np.ascontiguousarray(pixels),
        labels=images.labels,
        class_names=np.array(images.class_names),
    )
    return path


def features(names):
    return {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}


def image_table(images):
    """Columns image and label, with the metadata that `datasets` writes."""
    structs = [{"bytes": encode(pixels), "path": None} for pixels in images.images]
    table = pa.table(
        {"image": pa.array(structs, IMAGE_TYPE), "label": pa.array(images.labels.tolist(), pa.int64())}
    )
    described = {"info": {"features": features(images.class_names)}}
    return table.replace_schema_metadata({"huggingface": json.dumps(described)})


def write_parquet(path, images):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(image_table(images), path, row_group_size=50)
    return path


def write_saved(root, images):
    """The files that `Dataset.save_to_disk` of datasets 5.2 writes, in two shards."""
    root.mkdir(parents=True)
    table = image_table(images)
    names = [f"data-0000{shard}-of-00002.arrow" for shard in range(2)]
    half = len(table) // 2
    for name, part in zip(names, (table.slice(0, half), table.slice(half)), strict=True):
        with pa.OSFile(str(root / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(part, max_chunksize=40)
    state = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "0123456789abcdef",
        "_split": None,
    }
    (root / "state.json").write_text(json.dumps(state))
    (root / "dataset_info.json").write_text(json.dumps({"features": features(images.class_names)}))
    return root


def write_zip(path, folder, wrapped_in=""):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member in sorted(folder.rglob("*")):
            file.write(member, f"{wrapped_in}{member.relative_to(folder)}")
    return path


def write_tar(path, folder, compression="gz"):
    with tarfile.open(path, f"w:{compression}") as file:
        file.add(folder, arcname=".")
    return path
