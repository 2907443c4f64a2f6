"""The local Ray: nobody but the process that started it and its children can command it."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
import ray

# What a stranger on the network would do: ask the cluster's head for anything at all.
JOIN = """
import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1])
    print("joined")
except AuthenticationError:
    print("refused")
"""


def join(home, **variables: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", JOIN, ray.get_runtime_context().gcs_address],
        env={**kept, "HOME": str(home), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def test_ray_refuses_whoever_has_not_this_clusters_token(local_ray, tmp_path):
    assert join(tmp_path, RAY_AUTH_MODE="disabled") == "refused"
    assert join(tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64) == "refused"
    # That it is the token which is missing, and not the cluster:
    token = os.environ["RAY_AUTH_TOKEN"]
    assert join(tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token) == "joined"


def test_rays_http_ports_ask_for_the_token(local_ray):
    address = ray._private.worker.global_worker.node.runtime_env_agent_address
    request = urllib.request.Request(f"{address}/get_or_create_runtime_env", data=b"")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60)
    with refused.value:
        assert refused.value.code == 401


# A worker in a process of its own, whose raylet the system kills.
RESTART = """
import os, subprocess, sys, time
from pathlib import Path
import ray
from workers.wiring import ensure_ray

ensure_ray()
ensure_ray()
before = ray.get_runtime_context().get_node_id()
for stat in Path("/proc").glob("[0-9]*/stat"):
    name, _, rest = stat.read_text().partition(") ")
    if name.endswith("(raylet") and int(rest.split()[1]) == os.getpid():
        os.kill(int(stat.parent.name), 9)
deadline = time.monotonic() + 120
while ray.get_runtime_context().get_node_id() == before and time.monotonic() < deadline:
    time.sleep(0.5)
    ensure_ray()
print(ray.get(ray.remote(lambda: "works again").remote(), timeout=60))
"""


@pytest.mark.slow
def test_where_ray_has_died_on_this_machine_it_is_started_again():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", RESTART],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["works again"], done.stderr[-2000:]
