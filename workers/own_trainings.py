"""The trainings of a verification: each network in a space of one, from fresh weights or what it inherits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from secrets import token_hex

from safetensors.torch import save

from nas.architecture import Architecture
from nas.recipes import recipe_from_json
from nas.store.deletion import VERIFICATION, folder_of
from nas.store.tables import VerificationRow, VerificationRunRow
from nas.verification import Training, alone_recipe
from supernet.extract import extract
from supernet.network import Supernet
from supernet.training.checkpoint import replace_file
from supernet.warm_start import Carried, Changes, write_network
from workers.datasets import DatasetReference
from workers.single_run import SingleRun
from workers.trained import TrainedSupernet
from workers.training import TrainingPlan
from workers.warm_start import StartWeights


class OwnTrainings:
    """Says of each run what is trained, from what, and by which recipe."""

    def __init__(
        self,
        row: VerificationRow,
        trained: TrainedSupernet,
        supernet: Supernet,
        *,
        data: DatasetReference,
        folder: Path,
    ) -> None:
        """`folder` must reach every process that may do a run or go on with it."""
        self._row = row
        self._trained = trained
        self._supernet = supernet
        self._data = data
        self._folder = folder
        # A name of this attempt's own: one that lost its lease must not replace another's files.
        self._attempt = token_hex(8)

    def run(self, row: VerificationRunRow, network: Architecture) -> SingleRun:
        """The run of this row."""
        recipe = alone_recipe(recipe_from_json(self._trained.row.recipe), row.learning_rate)
        is_fine_tuned = row.training == Training.FINE_TUNED
        plan = TrainingPlan(
            supernet=replace(self._trained.description, network=network.to_json()),
            data=self._data,
            recipe=replace(recipe, epochs=row.epochs).to_json(),
            seed=self._row.seed,
            start=self._inherited(row.network_number, network) if is_fine_tuned else None,
            checkpoints=self._folder / "runs" / str(row.number),
            num_threads=1,
        )
        place = f"{folder_of(VERIFICATION, self._row.id)}/{self._attempt}-{row.number}"
        return SingleRun(number=row.number, plan=plan, weights_key=f"{place}/weights.safetensors")

    def _inherited(self, number: int, network: Architecture) -> StartWeights:
        """The network's slices of the supernet, as the weights of a space of one."""
        path = self._folder / "inherited" / f"{number}.safetensors"
        if not path.exists():
            plain = extract(self._supernet, network).state_dict()
            alone = replace(self._trained.description, network=network.to_json()).build()
            write_network(alone, alone.space.largest(), plain)
            tensors = {name: value.contiguous() for name, value in alone.state_dict().items()}
            replace_file(path, save(tensors))
        changes = Changes(classifier=Carried.KEPT, first_layer=Carried.KEPT)
        return StartWeights(path=path, sha256=self._trained.checkpoint, changes=changes)
