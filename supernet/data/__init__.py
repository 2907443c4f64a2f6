"""Data in: labelled images from a source, split by fixed rules, and fed to training and evaluation.

The way through: `DataSource` -> `load_source` -> `make_splits` -> (`save_cache`, `load_cache`) ->
`TrainingBatches` for training, `ResizedSplits` for calibration and evaluation.
"""

from supernet.data.augmentation import Augmentation, augmentation_for
from supernet.data.batches import TrainingBatches, calibration_batches, calibration_id, evaluation_batches
from supernet.data.cache import load_cache, save_cache
from supernet.data.decoded import SourceImages, load_source
from supernet.data.images import ImageSet, content_fingerprint
from supernet.data.preprocess import ResizedSplits, normalise, resize_uint8
from supernet.data.sources import DataSource, SourceKind
from supernet.data.splits import DataSplits, SplitPlan, make_splits

__all__ = [
    "Augmentation",
    "DataSource",
    "DataSplits",
    "ImageSet",
    "ResizedSplits",
    "SourceImages",
    "SourceKind",
    "SplitPlan",
    "TrainingBatches",
    "augmentation_for",
    "calibration_batches",
    "calibration_id",
    "content_fingerprint",
    "evaluation_batches",
    "load_cache",
    "load_source",
    "make_splits",
    "normalise",
    "resize_uint8",
    "save_cache",
]
