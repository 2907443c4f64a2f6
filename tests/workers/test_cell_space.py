"""The supernet of NAS-Bench-201 goes the whole way: trained, searched, its networks published."""

import pytest

from nas.job import JobState
from nas.store import searches, subnets
from search_spaces import SPACES

SPACE = SPACES["nas_bench_201"]
RECIPE = {"name": "spos", "epochs": 1, "batch_size": 128}


@pytest.mark.slow
def test_a_supernet_of_cells_is_trained_searched_and_published(site, local_ray):
    dataset = site.add_dataset()
    supernet = site.add_supernet(dataset.row.id, search_space=SPACE.name, recipe=RECIPE)
    search = site.add_search(supernet.row.id, num_trials=4)
    chosen = SPACE.parse("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|")
    subnet = site.add_subnet(supernet.row.id, chosen)
    jobs = [resource.job.id for resource in (dataset, supernet, search, subnet)]
    site.work(jobs, timeout_s=280)
    assert [(site.queue.get(job).state, site.queue.get(job).error) for job in jobs] == [
        (JobState.SUCCEEDED, None)
    ] * len(jobs)
    with site.database.session() as session:
        assert len(searches.trials(session, search.row.id)) == 4
        files = {file.name for file in subnets.artifacts(session, subnet.row.id)}
    assert {"model.py", "model.onnx", "card.json", "bundle.zip"} <= files
