"""Data sets: where images come from and how they are split. The limits are those of `supernet.data`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from api.schemas.common import CreateRequest, JobResource, RequestModel, Seed, job_shape
from api.schemas.dataset_report import DatasetReport
from nas.store.resources import WithJob
from nas.store.tables import DatasetRow

_MAX_IMAGES = 2**31 - 1

FilePath = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
StoredSide = Annotated[int, Field(ge=1, le=1024)]
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=256)]
UploadId = Annotated[str, StringConstraints(pattern=r"^up_[a-z0-9]{1,64}$")]


def _examples(*examples: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": list(examples)})


class ImageSource(RequestModel):
    """What every kind of source may say of how its images are taken in."""

    skip_unreadable: bool = Field(
        default=False,
        description="Whether images that cannot be read are left out and counted; "
        "else one of them fails the import.",
    )
    stored_size: Annotated[list[StoredSide], Field(min_length=2, max_length=2)] | None = Field(
        default=None,
        description="[height, width] in pixels at which images are stored; "
        "left out, it is the most common size, its longer side at most 256 pixels.",
    )
    fit: Literal["stretch", "centre_crop"] = Field(
        default="stretch",
        description="How images of another aspect ratio are brought to the stored size.",
    )


class TableColumns(RequestModel):
    """The columns of a table of images."""

    image_column: ColumnName = "image"
    label_column: ColumnName = "label"


class BundledSource(ImageSource):
    """Images that a package carries."""

    model_config = _examples({"kind": "bundled", "name": "digits"})

    kind: Literal["bundled"]
    name: Literal["digits"] = Field(description="scikit-learn's 1,797 handwritten digits of 8x8 pixels.")


class ParquetSource(ImageSource, TableColumns):
    """Parquet in the Hugging Face image layout, on the workers' machine: `path`, or a file for each split."""

    model_config = _examples(
        {"kind": "parquet", "path": "/data/cifar10"},
        {
            "kind": "parquet",
            "train": "/data/train.parquet",
            "test": "/data/test.parquet",
            "image_column": "img",
        },
    )

    kind: Literal["parquet"]
    path: FilePath | None = Field(
        default=None,
        description="A file, or a folder with train*.parquet and, where it has those splits, "
        "val*.parquet and test*.parquet.",
    )
    train: FilePath | None = Field(default=None, description="The file of the training images.")
    val: FilePath | None = Field(
        default=None,
        description="The file of the validation images; without it they are drawn from the training images.",
    )
    test: FilePath | None = Field(
        default=None,
        description="The file of the test images; without it they are drawn from the training images.",
    )

    @model_validator(mode="after")
    def _names_its_files_once(self) -> ParquetSource:
        if (self.path is None) == (self.train is None):
            raise ValueError("give either path or train, exactly one of them")
        if self.path is not None and (self.val is not None or self.test is not None):
            raise ValueError(
                "path finds its own val and test files; leave them out, or give train, val and test instead"
            )
        return self


class FolderSource(ImageSource):
    """Image files in folders named as their classes, with or without train, val and test above them."""

    model_config = _examples({"kind": "folder", "path": "/data/pets"})

    kind: Literal["folder"]
    path: FilePath = Field(
        description="The folder that holds the class folders, or train, val and test of class folders; "
        "on the workers' machine."
    )


class NpzSource(ImageSource):
    """Arrays in an npz file: uint8 images (n, h, w), (n, h, w, c) or (n, c, h, w), and integer labels."""

    model_config = _examples({"kind": "npz", "path": "/data/blood.npz", "skip_unreadable": False})

    kind: Literal["npz"]
    path: FilePath = Field(
        description="The file, on the workers' machine. Its arrays are images and labels; or train_images, "
        "train_labels, val_…, test_…; or x_train, y_train, x_val, …; and, if you like, class_names."
    )


class HuggingFaceSource(ImageSource, TableColumns):
    """A Hugging Face data set directory: `save_to_disk`, a repository with Parquet files, or image files."""

    model_config = _examples({"kind": "huggingface", "path": "/data/beans"})

    kind: Literal["huggingface"]
    path: FilePath = Field(description="The directory, on the workers' machine.")


class ArchiveSource(ImageSource, TableColumns):
    """A zip, tar, tar.gz, tar.bz2 or tar.xz of class folders, a Hugging Face directory, or one npz file."""

    model_config = _examples(
        {"kind": "archive", "path": "/data/pets.zip"},
        {"kind": "archive", "upload_id": "up_0123456789abcdef", "skip_unreadable": True},
    )

    kind: Literal["archive"]
    path: FilePath | None = Field(default=None, description="The file, on the workers' machine.")
    upload_id: UploadId | None = Field(
        default=None, description="An upload, as POST /v1/uploads answered it."
    )

    @model_validator(mode="after")
    def _is_one_file(self) -> ArchiveSource:
        if (self.path is None) == (self.upload_id is None):
            raise ValueError("give either path or upload_id, exactly one of them")
        return self


SOURCE_MODELS = (BundledSource, ParquetSource, FolderSource, NpzSource, HuggingFaceSource, ArchiveSource)

Source = Annotated[
    BundledSource | ParquetSource | FolderSource | NpzSource | HuggingFaceSource | ArchiveSource,
    Field(discriminator="kind"),
]


class Split(RequestModel):
    """How train, calibration, val and test are drawn."""

    test_fraction: float = Field(
        default=0.2, gt=0, le=0.5, description="Of all images, where the source has no test split."
    )
    val_fraction: float = Field(default=0.1, gt=0, le=0.5, description="Of the images that are not test.")
    val_images_wanted: int = Field(
        default=1000,
        ge=0,
        le=_MAX_IMAGES,
        description="Where val_fraction gives fewer, val grows to this many, never past twice val_fraction.",
    )
    calibration_images: int = Field(
        default=2000,
        ge=1,
        le=_MAX_IMAGES,
        description="Of the training images, for batch-norm statistics; all of them where there are fewer.",
    )
    seed: Seed = 0


class DatasetCreate(CreateRequest):
    """Images to register."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"display_name": "digits", "source": {"kind": "bundled", "name": "digits"}},
                {
                    "display_name": "pets",
                    "source": {"kind": "folder", "path": "/data/pets", "skip_unreadable": True},
                },
            ]
        }
    )

    source: Source
    split: Split = Split()


class Dataset(JobResource):
    """Labelled images, imported and split. What is found in them is null until the import has succeeded."""

    fingerprint: str | None = Field(description="SHA-256 of the images and labels, before splitting.")
    num_classes: int | None
    class_names: list[str] | None
    in_channels: int | None
    image_height: int | None = Field(description="Pixels.")
    image_width: int | None = Field(description="Pixels.")
    mean: list[float] | None = Field(
        description="Of each channel over the training images, pixels as 0 to 1."
    )
    std: list[float] | None
    counts: dict[str, int] | None = Field(
        description="Images by split; those of calibration are also in train."
    )
    num_unreadable: int | None = Field(
        description="Images of the source that could not be read and were left out."
    )
    stored_rule: str | None = Field(description="How the images were brought to one shape.")
    given_splits: list[str] | None = Field(
        description="Splits that the source itself has; the others are drawn from its train split."
    )


class DatasetDetail(Dataset):
    """A data set with the report on its images."""

    report: DatasetReport | None = Field(
        description="What the import found, also of images that it refused; null until it has looked at them."
    )


_CONTENTS = tuple(name for name in Dataset.model_fields if name not in {*JobResource.model_fields, "counts"})


def describe_dataset_detail(found: WithJob[DatasetRow]) -> DatasetDetail:
    """The data set as an answer of its own shows it; the row's session must be open."""
    return DatasetDetail(**describe_dataset(found).model_dump(), report=found.row.report)


def describe_dataset(found: WithJob[DatasetRow]) -> Dataset:
    """The data set as answers show it."""
    row = found.row
    contents = {name: getattr(row, name) for name in _CONTENTS}
    counts = None
    if row.fingerprint is not None:
        counts = {split: getattr(row, f"num_{split}") for split in ("train", "calibration", "val", "test")}
    return Dataset(**job_shape(found, "datasets", more=("splits",)), **contents, counts=counts)
