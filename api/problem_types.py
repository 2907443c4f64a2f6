"""Every `type` of problem that the service answers with, and when: what clients branch on."""

from __future__ import annotations

from collections.abc import Mapping

PROBLEM_TYPES: Mapping[str, str] = {
    "artifact-unavailable": "The bytes are not in the artefact store, or it does not take them; try again.",
    "bad-request": "The request cannot be read as HTTP.",
    "body-too-large": "The body is larger than the limit, which is named.",
    "conflict": "The resource is in a state that does not allow this.",
    "database-unavailable": "The database does not answer just now; Retry-After tells when to try again.",
    "dataset-not-ready": "The data set's import did not succeed.",
    "device-not-ready": "Nothing predicts latencies on the device for the networks asked about.",
    "digest-mismatch": "The bytes that came are not those that Content-Digest promised.",
    "empty-upload": "The body of an upload is empty.",
    "idempotency-conflict": "The Idempotency-Key was used with another body.",
    "idempotency-in-flight": "The first request with this Idempotency-Key goes on; try again.",
    "infeasible-constraints": "It is proved that no network keeps them; `relax` or `relax_alone` would help.",
    "internal-error": "A defect of this service.",
    "invalid-host": "The Host header names no loopback address.",
    "invalid-json": "The body is no plain JSON.",
    "invalid-lines": "The body is no latency table, or not what a probe wrote; the detail names the lines.",
    "invalid-request": "A field, parameter or header has an impossible value; `errors` names each.",
    "method-not-allowed": "The path has other methods; Allow lists them.",
    "no-network-within-bounds": "Nothing measured keeps them; `nearest` does best, and needs `relax`.",
    "not-found": "No such resource, or no such path.",
    "range-not-satisfiable": "The Range lies outside the file.",
    "resource-in-use": "Other resources refer to it: `used_by` lists the first, `num_users` counts them all.",
    "schema-not-current": "The database was made by another version.",
    "storage-full": "The artefact store has no room for the bytes.",
    "subnet-not-ready": "The subnet's bundle is not published.",
    "supernet-not-ready": "The supernet is not trained, or nothing of it is measured yet.",
    "unknown-architecture": "The description names no network of the space.",
    "unknown-device": "There is no such device; those there are, are listed.",
    "unknown-name": "A name is not in its closed list.",
    "unknown-search-space": "There is no such search space; those there are, are listed.",
    "unsupported-media-type": "The body is not of a media type that the call takes.",
    "upload-cut": "The connection ended before the body did.",
    "work-file-not-ready": "The work file is not made yet.",
}


def describe_problem_types() -> str:
    """The list as text, for the OpenAPI document."""
    lines = (f"- `/problems/{slug}`: {meaning}" for slug, meaning in PROBLEM_TYPES.items())
    return "\n".join(["One of these; to be compared, not to be fetched.", "", *lines])
