"""Data in: labelled images from a source, split by fixed rules, and fed to training and evaluation.

The way through: `DataSource` -> `Intake` (a survey of all headers, then every image decoded into a cache,
then the splits drawn, and a report on all of it) -> `TrainingBatches` for training, `ResizedSplits` for
calibration and evaluation. Sources that fit into memory also go without a cache: `load_source`, then
`make_splits`.
"""

from supernet.data.augmentation import Augmentation, augmentation_for
from supernet.data.batches import TrainingBatches, calibration_batches, calibration_id, evaluation_batches
from supernet.data.cache import load_cache, load_splits
from supernet.data.decoded import FINGERPRINT_FORMAT, DecodedImages, load_listing, load_source
from supernet.data.images import ImageSet
from supernet.data.intake import Intake
from supernet.data.listing import ArrayListing, GivenSplit, ImageListing, LabelledArrays, SourceImage
from supernet.data.preprocess import ResizedSplits, normalise, resize_uint8
from supernet.data.sources import DataSource, SourceKind
from supernet.data.splits import DataSplits, SplitPlan, make_splits
from supernet.data.survey import Storage, UnreadableImagesError

__all__ = [
    "FINGERPRINT_FORMAT",
    "ArrayListing",
    "Augmentation",
    "DataSource",
    "DataSplits",
    "DecodedImages",
    "GivenSplit",
    "ImageListing",
    "ImageSet",
    "Intake",
    "LabelledArrays",
    "ResizedSplits",
    "SourceImage",
    "SourceKind",
    "SplitPlan",
    "Storage",
    "TrainingBatches",
    "UnreadableImagesError",
    "augmentation_for",
    "calibration_batches",
    "calibration_id",
    "evaluation_batches",
    "load_cache",
    "load_listing",
    "load_source",
    "load_splits",
    "make_splits",
    "normalise",
    "resize_uint8",
]
