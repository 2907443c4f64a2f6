"""The report on a data set's images, as `supernet.data.report` writes it."""

from __future__ import annotations

from pydantic import Field

from api.schemas.common import AnswerModel


class ClassReport(AnswerModel):
    """One class."""

    name: str
    images: dict[str, int] = Field(
        description="By split: train, val and test as they are used; where refused, the source's own."
    )


class StoredReport(AnswerModel):
    """The one shape in which all images are held."""

    channels: int
    height: int = Field(description="Pixels.")
    width: int = Field(description="Pixels.")
    rule: str = Field(description="How images were brought to it.")


class SizeReport(AnswerModel):
    """Images of one size."""

    width: int
    height: int
    images: int


class SizesReport(AnswerModel):
    """Sizes in the source, in pixels as seen."""

    num_distinct: int
    min_width: int
    max_width: int
    min_height: int
    max_height: int
    most_common: list[SizeReport]


class DuplicatesReport(AnswerModel):
    """Images whose stored pixels are the same."""

    within: dict[str, int] = Field(
        description="By split of the source: images that repeat another of the same split."
    )
    across: dict[str, int] = Field(
        description="By pair of the source's splits, as train_test: images of the second also in the first."
    )
    contradictory: int = Field(
        description="Images with a copy of another label in the same split; never drawn out of train."
    )


class UnreadableImage(AnswerModel):
    """An image that cannot be used."""

    where: str
    reason: str


class UnreadableReport(AnswerModel):
    """Images that could not be read: left out, or the reason why the import was refused."""

    count: int
    listed_at_most: int = Field(description="The list ends there, however many there are.")
    images: list[UnreadableImage]


class DatasetReport(AnswerModel):
    """What the import found in a source."""

    num_images: int = Field(description="That can be read.")
    given_splits: dict[str, int] = Field(
        description="Readable images of each split that the source itself has; others are drawn from train."
    )
    classes: list[ClassReport]
    imbalance: float | None = Field(
        description="Images of the largest class for one of the smallest; null where a class has none."
    )
    stored: StoredReport | None
    sizes: SizesReport | None
    modes: dict[str, int] = Field(description="Images by Pillow's name of how their pixels are kept.")
    duplicates: DuplicatesReport | None = Field(description="Null where not all images were decoded.")
    unreadable: UnreadableReport
    warnings: list[str] = Field(description="What a person should know, in sentences.")
