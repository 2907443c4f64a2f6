"""`nas dataset`: labelled images."""

from __future__ import annotations

from pathlib import Path

import click

from nas.client import Client
from nas.commands.exits import UsageError
from nas.commands.files import show_saved, with_folder
from nas.commands.images import KINDS, packed, source_of
from nas.commands.options import ID, with_waiting
from nas.commands.report import say_warnings, show_report
from nas.commands.request_body import Body, put, put_given, with_body
from nas.commands.resources import (
    COMMON_COLUMNS,
    CREATED,
    Noun,
    add_delete,
    add_get,
    add_list,
    add_watch,
    show_created,
)
from nas.commands.sending import sent
from nas.commands.session import Session, with_session
from nas.commands.text import NOTHING, count
from nas.errors import NasError

SPLITS = ("train", "val", "test")

DATASET = Noun(
    name="dataset",
    people_say="data set",
    collection=lambda client: client.datasets,
    columns={
        **COMMON_COLUMNS,
        "KIND": lambda item: item["spec"]["source"]["kind"],
        "CLASSES": lambda item: count(item["num_classes"]),
        "TRAIN/VAL/TEST": lambda item: (
            "/".join(str(item["counts"][split]) for split in SPLITS) if item["counts"] else NOTHING
        ),
        **CREATED,
    },
    hidden=("report",),
)


@click.group()
def dataset() -> None:
    """Labelled images to train on."""


@dataset.command("add")
@click.argument("path", required=False, metavar="[PATH]")
@click.option("--kind", type=click.Choice(KINDS), help="What lies at PATH, if it cannot be seen from here.")
@click.option("--upload", is_flag=True, help="Send it: for a service that cannot read this machine's files.")
@click.option("--skip-unreadable", is_flag=True, help="Leave broken images out instead of refusing them all.")
@click.option("--image-column", help="Of Parquet.")
@click.option("--label-column", help="Of Parquet.")
@click.option("--val-fraction", type=float, help="Of the images that are not test.")
@click.option("--test-fraction", type=float, help="Of all images, where the source has no test split.")
@click.option("--val-images", type=int, help="Where --val-fraction gives fewer, val grows to this many.")
@click.option("--calibration-images", type=int, help="Training images for batch-norm statistics.")
@click.option("--split-seed", type=int, help="Of the draw.")
@with_body
@with_waiting
@with_session
def add_dataset(
    session: Session,
    *,
    body: Body,
    path: str | None,
    kind: str | None,
    upload: bool,
    skip_unreadable: bool,
    image_column: str | None,
    label_column: str | None,
    val_fraction: float | None,
    test_fraction: float | None,
    val_images: int | None,
    calibration_images: int | None,
    split_seed: int | None,
    wait: bool,
    timeout: float | None,
) -> None:
    """Register images: a folder, a Parquet or npz file, an archive, or the bundled `digits`.

    PATH may be a folder of class folders (or of train/, val/, test/ with them), a Parquet file or a folder of
    them, an npz file, what Hugging Face saves, or an archive (zip, tar, also compressed) of one of these.
    """
    given = {
        "source.image_column": image_column,
        "source.label_column": label_column,
        "source.skip_unreadable": True if skip_unreadable else None,
        "split.val_fraction": val_fraction,
        "split.test_fraction": test_fraction,
        "split.val_images_wanted": val_images,
        "split.calibration_images": calibration_images,
        "split.seed": split_seed,
    }
    if upload and path is None:
        raise UsageError("--upload sends what lies at PATH; give it")
    if path is None and "source" not in body:
        raise UsageError("say which images: give PATH, such as a folder or `digits`, or a file with -f")
    if path is not None and not upload:
        for field, value in source_of(path, kind).items():
            put(body, f"source.{field}", value)
    put_given(body, given)
    with session.client() as client:
        if path is not None and upload:
            put(body, "source.kind", "archive")
            put(body, "source.upload_id", _sent(session, client, Path(path).expanduser(), kind))
        created = client.datasets.create_from(body)
        show_created(session, DATASET, created, wait=wait, timeout=timeout)
        if wait:
            say_warnings(session, client.datasets.get(created.id).get("report"))


def _sent(session: Session, client: Client, path: Path, kind: str | None) -> str:
    """The id of the upload."""
    if kind not in (None, "archive"):
        raise UsageError(
            f"--upload sends an archive, and the service sees what is in it; leave out --kind {kind}"
        )
    if not path.exists():
        raise UsageError(f"{path}: there is no such file or folder here to upload; correct the path")
    with packed(path) as (file, name):
        return sent(session, client, file, name)


@dataset.command("report")
@click.argument("resource_id", type=ID, metavar="ID")
@with_session
def report_dataset(session: Session, *, resource_id: str) -> None:
    """What the import found: classes, counts, imbalance, sizes, duplicates, unreadable files."""
    with session.client() as client:
        found = client.datasets.get(resource_id)
    report = found.get("report")
    if report is None:
        remedy = f"nas dataset get {found.id}" if found.is_terminal else f"nas dataset watch {found.id}"
        raise NasError(f"{found.id} is {found.state} and has no report; see: {remedy}")
    show_report(session, report)


@dataset.command("download")
@click.argument("resource_id", type=ID, metavar="ID")
@click.option(
    "--split",
    "splits",
    type=click.Choice(SPLITS),
    multiple=True,
    help="Repeat it for several (default: all three).",
)
@with_folder
@with_session
def download_dataset(session: Session, *, resource_id: str, splits: tuple[str, ...], folder: Path) -> None:
    """Save the splits as npz files: uint8 `images` (n, c, h, w) as stored, int64 `labels`, `class_names`."""
    with session.client() as client:
        found = client.datasets.get(resource_id)
        paths = [found.download(split, folder) for split in splits or SPLITS]
        show_saved(session, found.id, paths, found.splits())


add_list(dataset, DATASET)
add_get(dataset, DATASET)
add_watch(dataset, DATASET)
add_delete(dataset, DATASET)
