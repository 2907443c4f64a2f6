"""`nas job`: the work behind every resource."""

from __future__ import annotations

import click

from nas.commands.resources import CREATED, Noun, add_cancel, add_get, add_list, add_watch, state_and_progress
from nas.job import JobState

JOB = Noun(
    name="job",
    people_say="job",
    collection=lambda client: client.jobs,
    columns={
        "ID": lambda item: item["id"],
        "KIND": lambda item: item["kind"],
        "STATE": state_and_progress,
        "RESOURCE": lambda item: item["resource_id"],
        **CREATED,
    },
)


@click.group()
def job() -> None:
    """The work behind data sets, supernets, searches and subnets."""


add_list(
    job,
    JOB,
    click.option(
        "--state",
        type=click.Choice([state.value for state in JobState]),
        multiple=True,
        help="Only in this state; repeat it for several.",
    ),
)
add_get(job, JOB)
add_watch(job, JOB)
add_cancel(job, JOB)
