"""A source taken in: surveyed, decoded into a cache, and reported on, whether or not it could be."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from nas.ports import StopCheck, never_stop
from supernet.data.cache import load_splits, new_cache, pixel_file, put_in_place
from supernet.data.decoded import DecodedImages, ImageProgress, decode_listing
from supernet.data.listing import ImageListing
from supernet.data.report import dataset_report
from supernet.data.sources import DataSource, open_listing
from supernet.data.splits import DataSplits, SplitPlan
from supernet.data.survey import Storage, Survey, survey_images


class Intake:
    """One import. Nothing larger than one image, or what a source reads at once, is held in memory."""

    def __init__(
        self,
        listing: Callable[[], ImageListing],
        storage: Storage,
        caches: Path,
        stop_check: StopCheck = never_stop,
    ) -> None:
        """`listing` opens the images; `caches` is the folder of this machine's decoded ones."""
        self._open_listing = listing
        self._storage = storage
        self._caches = caches
        self._stop_check = stop_check
        self._decoded: DecodedImages | None = None
        self._splits: DataSplits | None = None
        self.survey: Survey | None = None
        """Of the headers, and of the pixels once they are decoded; None before."""

    @classmethod
    def of(cls, source: DataSource, caches: Path, stop_check: StopCheck = never_stop) -> Intake:
        """The import of what `source` names, as it asks for it."""
        return cls(partial(open_listing, source, stop_check), Storage.of(source), caches, stop_check)

    def decode(self, progress: ImageProgress = lambda done, total: None) -> DecodedImages:
        """The decoded images, in a cache that other data sets of the same content share."""
        listing = self._open_listing()
        survey = self.survey = Survey.of(listing)
        survey_images(survey, listing, self._storage, self._stop_check)
        with new_cache(self._caches) as folder:
            with pixel_file(folder, survey.num_readable, survey.shape) as pixels:
                order = decode_listing(
                    listing,
                    self._storage,
                    survey,
                    pixels.append,
                    stop_check=self._stop_check,
                    progress=progress,
                )
            self._decoded = put_in_place(folder, order)
        return self._decoded

    def split(self, plan: SplitPlan) -> DataSplits:
        """The decoded images, split as `plan` says."""
        decoded = self._decoded or self.decode()
        self._splits = load_splits(self._caches / decoded.fingerprint, plan, self._stop_check)
        return self._splits

    def report(self) -> dict[str, object] | None:
        """What has been found so far, also of a source that was refused; None before it was looked at."""
        if self.survey is None or not self.survey.num_images:
            return None
        order = self._decoded.order if self._decoded else None
        return dataset_report(self.survey, order, self._splits)
