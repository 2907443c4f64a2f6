"""Training: one weight-shared supernet, by strategies that are passed in as objects.

The way through: a `nas.recipe.Recipe` -> `build_stack` -> `Trainer`. `trainer.py` holds the order of a step
and nothing else; a new method is a new strategy file and its entry in `nas/recipe.py` and `stack.py`.
"""

from supernet.training.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from supernet.training.collective import Collective, SingleProcess, TorchCollective
from supernet.training.formats import CheckpointError, DamagedCheckpointError, NewerFormatError
from supernet.training.guard import TrainingDivergedError
from supernet.training.memory import tune_malloc
from supernet.training.stack import Stack, build_stack
from supernet.training.state import TrainingState
from supernet.training.trainer import Batches, StepStats, Trainer

__all__ = [
    "Batches",
    "CheckpointError",
    "Collective",
    "DamagedCheckpointError",
    "NewerFormatError",
    "SingleProcess",
    "Stack",
    "StepStats",
    "TorchCollective",
    "Trainer",
    "TrainingDivergedError",
    "TrainingState",
    "build_stack",
    "latest_checkpoint",
    "load_checkpoint",
    "save_checkpoint",
    "tune_malloc",
]
