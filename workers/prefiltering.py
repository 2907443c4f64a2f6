"""A search's pre-filter, with what it comes to written on the search: a resumed one reads it there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from nas.architecture import Architecture
from nas.prefilter.deepmad.search_filter import DeepMadFilter
from nas.prefilter.names import PrefilterName
from nas.search.loop import Proposer
from nas.search.region import FeasibleRegion
from nas.search.settings import SearchSettings
from nas.store import evaluations, searches
from nas.store.jobs import add_event
from nas.store.tables import SearchRow
from workers.context import JobContext
from workers.trained import TrainedSupernet

MakeProposer = Callable[[FeasibleRegion, SearchSettings], Proposer]
_PHASE = "prefilter"
PREFILTERED = "prefiltered"
"""The event with the report."""


class RecordedPrefilter:
    """What the loop asks of a pre-filter. Every answer is written before it is given; the first one stands.

    It is found from the evaluations known before the search's first attempt and those of its first round, so
    that another attempt would find the same.
    """

    def __init__(
        self,
        job_id: str,
        row: SearchRow,
        trained: TrainedSupernet,
        context: JobContext,
        *,
        region: FeasibleRegion,
        settings: SearchSettings,
        make_proposer: MakeProposer,
    ) -> None:
        self._job_id, self._row, self._trained, self._context = job_id, row, trained, context
        self._region, self._settings, self._make_proposer = region, settings, make_proposer
        self._filter = DeepMadFilter(
            region,
            cost_objectives=settings.cost_objectives,
            num_classes=trained.description.num_classes,
            in_channels=trained.description.in_channels,
            seed=settings.seed,
            on_part=context.check,
        )

    def seeds(self) -> Sequence[Architecture]:
        """Some of the first round's networks: the best by the pre-filter's lights."""
        kept = self._row.prefilter_seeds
        if kept is None:
            self._context.report(_PHASE, 0, 1)
            found = [network.to_json() for network in self._filter.seeds(self._settings.num_seeds)]
            with self._context.transaction() as session:
                kept = [*searches.keep_prefilter_seeds(session, self._row.id, found)]
        return [self._trained.space.parse(description) for description in kept]

    def narrow(
        self, measured: Sequence[tuple[Architecture, float]]
    ) -> tuple[FeasibleRegion, Proposer] | None:
        """The region without what is cut, and a proposer of its own for it; None where nothing is cut."""
        report = self._row.prefilter_report
        if report is None:
            self._context.report(_PHASE, 0, 1)
            found = self._filter.judge([*self._known_before(measured), *measured]).to_json()
            with self._context.transaction() as session:
                report = searches.keep_prefilter_report(session, self._row.id, found)
                add_event(session, self._job_id, PREFILTERED, report)
        if not report["is_cut"]:
            return None
        region = replace(self._region, cut=self._filter.cut)
        return region, self._make_proposer(region, self._settings)

    def _known_before(
        self, measured: Sequence[tuple[Architecture, float]]
    ) -> list[tuple[Architecture, float]]:
        """What was measured before the search's first attempt, beside the networks of the first round."""
        others = {network.key for network, _ in measured}
        with self._context.transaction() as session:
            # Frozen before the first round was chosen.
            frozen = {*(searches.get(session, self._row.id).row.known_evaluation_ids or ())}
            known = evaluations.known(session, self._trained.protocol)
            return [
                (self._trained.space.parse(row.architecture), row.num_correct / row.num_images)
                for key, row in known.items()
                if row.id in frozen and key not in others
            ]


def open_prefilter(
    job_id: str,
    row: SearchRow,
    trained: TrainedSupernet,
    context: JobContext,
    *,
    region: FeasibleRegion,
    settings: SearchSettings,
    make_proposer: MakeProposer,
) -> RecordedPrefilter | None:
    """The pre-filter that the search asks for, if any."""
    if row.prefilter == PrefilterName.NONE:
        return None
    return RecordedPrefilter(
        job_id, row, trained, context, region=region, settings=settings, make_proposer=make_proposer
    )
