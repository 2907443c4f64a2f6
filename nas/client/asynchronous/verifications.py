"""The collection of verifications: networks measured to the end, and trained on their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from nas.client.asynchronous.collection import AsyncProducts
from nas.client.asynchronous.resources import AsyncVerification, AsyncVerifiedNetwork


class AsyncVerifications(AsyncProducts[AsyncVerification]):
    """Chosen networks, trained on their own to verify what they inherit."""

    path = "/v1/verifications"
    kind = AsyncVerification

    async def create(
        self,
        *,
        search_id: str | None = None,
        trial_numbers: Iterable[int] | None = None,
        supernet_id: str | None = None,
        architectures: Iterable[Mapping[str, Any] | str] | None = None,
        trainings: Iterable[str] | None = None,
        learning_rates: Iterable[float] | None = None,
        epochs: int | None = None,
        seed: int | None = None,
        display_name: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> AsyncVerification:
        """Verify trials of a search, those on its frontier where none are named, or any networks.

        `trainings` are "alone" (the default) and "fine_tuned"; [] trains nothing, and measures.
        """
        body = {
            "search_id": search_id,
            "trial_numbers": _listed(trial_numbers),
            "supernet_id": supernet_id,
            "architectures": _listed(architectures),
            "trainings": _listed(trainings),
            "learning_rates": _listed(learning_rates),
            "epochs": epochs,
            "seed": seed,
            "display_name": display_name,
            "labels": labels,
        }
        return await self.create_from(body)

    def networks(self, verification_id: str) -> AsyncIterator[AsyncVerifiedNetwork]:
        """See `Verification.networks`."""
        return self._unread(verification_id).networks()

    def runs(self, verification_id: str) -> AsyncIterator[dict[str, Any]]:
        """See `Verification.runs`."""
        return self._unread(verification_id).runs()


def _listed(values: Iterable[Any] | None) -> list[Any] | None:
    return None if values is None else list(values)
