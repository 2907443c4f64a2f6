"""DeepMAD (Shen et al., CVPR 2023): the numbered laws, each under its number."""

import json
from dataclasses import replace
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nas.costs import batch_costs
from nas.errors import InvalidRequestError, UnknownNameError
from nas.prefilter.deepmad import (
    BlockKind,
    Demand,
    DepthSpread,
    Monotone,
    PenalisedStages,
    ResolutionMode,
    ScoreRules,
    Stage,
    Structure,
    backbone_params,
    cut_options,
    deepmad_flops,
    is_monotone,
    score,
    solve,
)
from nas.prefilter.deepmad.backbone import trace_backbone
from nas.prefilter.deepmad.part import whole
from nas.prefilter.deepmad.program import make_program
from nas.prefilter.deepmad.solver import relaxed
from nas.prefilter.deepmad.tables import score_tables
from nas.subspace import SubSpace
from search_spaces import SPACES
from tests.fidelity.deepmad_census import SMALL, Census
from tests.fidelity.deepmad_networks import PUBLISHED

PAPER = ScoreRules(spread=DepthSpread.VARIANCE, penalised_stages=PenalisedStages.ALL)
OFFICIAL = ScoreRules(resolution_mode=ResolutionMode.OFFICIAL)


# 1. The scorer reproduces every published row


@pytest.mark.parametrize("name", PUBLISHED)
def test_1_every_published_network_has_its_published_figures(name):
    published = PUBLISHED[name]
    layers = published.structure.lower()
    found = score(layers)
    assert backbone_params(layers) / 1e6 == pytest.approx(published.params_millions, abs=6e-4)
    assert deepmad_flops(layers) / 1e9 == pytest.approx(published.gflops, abs=6e-4)
    assert found.effectiveness == pytest.approx(published.effectiveness, abs=6e-5)
    assert found.entropy == pytest.approx(published.entropy, abs=0.06)
    assert found.objective == pytest.approx(published.objective, abs=0.06)


def published_rows():
    path = Path(__file__).resolve().parents[3] / "shared" / "specs" / "deepmad_published.json"
    if not path.exists():
        pytest.skip(
            "needs ../shared/specs/deepmad_published.json, which only developers of this project have"
        )
    return json.loads(path.read_text())


def structure_of(row):
    stages = tuple(
        Stage(
            kind=BlockKind(block["class"]),
            out_channels=block["out"],
            kernel=block["k"],
            stride=block["s"],
            inner_channels=block.get("btn"),
            depth=block.get("L", 1),
        )
        for block in row["structure"]
    )
    return Structure(stages=stages, resolution_px=row["image_size"])


def test_1_every_row_of_the_published_table_is_reproduced():
    rows = published_rows()["models"]
    assert len(rows) >= 5
    for row in rows:
        layers, expected = structure_of(row).lower(), row["computed"]
        found, official = score(layers), score(layers, OFFICIAL)
        assert backbone_params(layers) == expected["params"]
        assert deepmad_flops(layers) == expected["flops"]
        assert found.entropy == pytest.approx(expected["H_weighted"], rel=1e-6)
        assert official.entropy == pytest.approx(expected["H_weighted_official_code"], rel=1e-6)
        assert found.objective == pytest.approx(expected["objective"], rel=1e-6)
        assert official.objective == pytest.approx(expected["objective_official_code"], rel=1e-6)
        assert score(layers, PAPER).objective == pytest.approx(expected["objective_paper_Q"], rel=1e-6)
        # The table gives these with fewer digits than 1e-6 of them.
        assert found.tap_entropies == pytest.approx(expected["stage_entropy"], abs=6e-5)
        assert found.tap_effectiveness == pytest.approx(expected["rho_per_prefix"], abs=6e-6)
        assert list(found.depths) == expected["depths"]
        assert is_monotone(layers, Monotone.OUT) == row["monotone_out"]
        assert is_monotone(layers, Monotone.INNER) == row["monotone_btn"]


def test_1_the_first_squeeze_excite_blinds_the_official_code_to_the_resolution():
    layers = PUBLISHED["29M-224"].structure.lower()
    assert score(layers, OFFICIAL).entropy == pytest.approx(11915.37, abs=0.01)
    larger = replace(PUBLISHED["29M-224"].structure, resolution_px=288).lower()
    # The stem's stage is read behind squeeze-excites already, so nothing is left of the resolution.
    assert score(larger, OFFICIAL).entropy == score(layers, OFFICIAL).entropy


def test_1_the_published_r18_fails_its_own_budget_and_the_papers_penalty():
    layers = PUBLISHED["R18"].structure.lower()
    assert deepmad_flops(layers) > 1.82e9
    assert score(layers, PAPER).objective < -2e7


# 2. The entropy of a chain of convolutions is the logarithm of the spread of what it puts out


def test_2_entropy_is_the_logarithm_of_the_measured_standard_deviation_of_a_linear_chain():
    torch.manual_seed(0)
    structure = Structure(
        stages=(
            Stage(kind=BlockKind.CONV, out_channels=64, kernel=3, stride=1),
            Stage(kind=BlockKind.BOTTLENECK, out_channels=128, inner_channels=48, kernel=5, stride=1),
            Stage(kind=BlockKind.INVERTED_RESIDUAL, out_channels=96, inner_channels=192, kernel=3, stride=1),
        ),
        resolution_px=56,
    )
    convs = [step.layer for step in trace_backbone(structure.lower()).steps if step.is_conv]
    assert len(convs) == 7
    entropy = sum(step.log_width for step in trace_backbone(structure.lower()).steps) / 2
    measured = np.mean([log_spread(convs, structure.resolution_px) for _ in range(12)])
    assert abs(measured - entropy) / len(convs) < 0.02
    assert measured == pytest.approx(entropy, rel=0.02)


@torch.no_grad()
def log_spread(convs, side):
    """Of the pixels that no padding reaches."""
    images = torch.randn(8, 3, side, side)
    margin = 0
    for layer in convs:
        conv = nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel, padding=layer.padding, groups=layer.groups,
            bias=False,
        )  # fmt: skip
        nn.init.normal_(conv.weight)
        images = conv(images)
        margin += layer.padding
    return float(images[..., margin:-margin, margin:-margin].square().mean().log() / 2)


# 3. The program equals brute force


@pytest.fixture(scope="module")
def census():
    return Census()


def random_demands(census, count, *, seed):
    """Budgets between the tightest that some network keeps and the loosest, and effectiveness likewise."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        anchor = rng.integers(len(census.codes))
        budgets = {name: float(costs[anchor]) * rng.uniform(1.0, 1.3) for name, costs in census.costs.items()}
        limit = None if index % 3 == 0 else float(census.effectiveness[anchor]) * rng.uniform(1.0, 1.1)
        yield Demand(budgets=budgets, max_effectiveness=limit)


def test_3_the_census_is_the_space_and_scores_as_the_lowering_does(census):
    assert len(census.codes) == SMALL.size() == 564_480
    for row in np.random.default_rng(0).integers(len(census.codes), size=150):
        found = score(SMALL.lower(SMALL.decode(census.codes[row])))
        assert found.objective == pytest.approx(census.objective[row], rel=1e-12)
        assert found.effectiveness == pytest.approx(census.effectiveness[row], rel=1e-12)


def test_3_the_proved_optimum_is_that_of_brute_force(census):
    for demand in random_demands(census, 20, seed=1):
        kept = census.keeps(demand)
        solution = solve(SMALL, demand)
        assert solution.is_proved
        best = solution.ranked[0]
        assert best.score.objective == pytest.approx(census.objective[kept].max(), rel=1e-9)
        assert all(best.costs[name] <= limit for name, limit in demand.budgets.items())
        row = SMALL.encode([best.architecture])
        assert {n: v[0] for n, v in batch_costs(SMALL, row, names=("macs", "params")).items()} == best.costs


def test_3_the_ranked_list_is_the_head_of_the_census(census):
    for demand in random_demands(census, 3, seed=2):
        ranked = solve(SMALL, demand, count_best=6).ranked
        objectives = [best.score.objective for best in ranked]
        # Networks that differ in the order of equal blocks are one: the census has each value several times.
        values = np.unique(np.round(census.objective[census.keeps(demand)], 8))[::-1]
        assert objectives == sorted(objectives, reverse=True)
        assert len({best.architecture for best in ranked}) == 6
        assert set(np.round(objectives, 8)) == set(values[values >= min(objectives) - 1e-7])


def test_3_no_network_is_above_the_bound_of_a_part_that_holds_it(census):
    rng = np.random.default_rng(3)
    resolution = census.codes[:, 0]
    column = [d.name for d in SMALL.decisions].index("stage2.width")
    for demand in random_demands(census, 4, seed=4):
        kept = census.keeps(demand)
        tables = score_tables(SMALL, tuple(sorted(demand.budgets)), {})
        part = whole(tables)
        while part is not None:
            bound, _ = relaxed(make_program(tables, part, demand))
            depths = sum(
                np.array(d.options)[census.codes[:, i]]
                for i, d in enumerate(SMALL.decisions)
                if d.name.endswith("depth")
            )
            inside = np.isin(resolution, part.left["resolution"])
            inside &= np.isin(census.codes[:, column], part.left["stage2.width"])
            inside &= (depths >= part.num_blocks[0]) & (depths <= part.num_blocks[1]) & kept
            assert not inside.any() or bound >= census.objective[inside].max() - 1e-6
            halves = part.halves()
            part = halves[int(rng.integers(2))] if halves else None


def test_3_what_is_infeasible_is_proved_to_be(census):
    demand = Demand(budgets={"macs": float(census.costs["macs"].min()) - 1})
    solution = solve(SMALL, demand)
    assert solution.ranked == () and solution.is_proved and solution.bound == -np.inf
    exact = Demand(budgets={"macs": float(census.costs["macs"].min())})
    assert solve(SMALL, exact).ranked[0].costs["macs"] == census.costs["macs"].min()


@pytest.mark.parametrize("slack", [0.0, 0.002, 0.03])
def test_3_options_that_are_cut_are_part_of_no_better_network(census, slack):
    for demand in random_demands(census, 6, seed=5):
        kept = census.keeps(demand)
        floor = census.objective[kept].max() * (1 - slack)
        survivors = cut_options(SMALL, demand, floor=floor)
        subspace = SubSpace(SMALL, survivors.kept)
        better = census.codes[kept & (census.objective >= floor)]
        for row in better[:: max(1, len(better) // 300)]:
            assert subspace.contains(SMALL.decode(row))
        assert survivors.log_size_before == pytest.approx(log(SMALL.size()))
        inside = np.ones(len(census.codes), dtype=bool)
        for column, decision in enumerate(SMALL.decisions):
            left = [i for i, o in enumerate(decision.options) if o in survivors.kept[decision.name]]
            inactive = np.zeros(len(inside), dtype=bool)
            if decision.active_if is not None:
                parent = [d.name for d in SMALL.decisions].index(decision.active_if.parent)
                options = np.array(SMALL.decisions[parent].options)
                inactive = options[census.codes[:, parent]] < decision.active_if.minimum
            inside &= inactive | np.isin(census.codes[:, column], left)
        assert survivors.log_size_after == pytest.approx(log(inside.sum()))
        # With more slack every option is part of some network that is good enough.
        assert slack or survivors.log_size_after < survivors.log_size_before


@pytest.mark.parametrize("name", ["attentive_nas", "ofa_resnet50"])
def test_3_no_random_network_beats_the_proved_optimum_of_a_real_space(name):
    space = SPACES[name]
    rng = np.random.default_rng(6)
    networks = [space.sample(rng) for _ in range(300)]
    scores = [score(space.lower(network)) for network in networks]
    costs = batch_costs(space, space.encode(networks), names=("macs", "params"))
    anchor = int(np.argsort(costs["macs"])[60])
    limit = scores[anchor].effectiveness
    demand = Demand(
        budgets={n: float(c[anchor]) for n, c in costs.items()}, max_effectiveness=limit * (1 + 1e-9)
    )
    solution = solve(space, demand, limit_s=3)
    for index, found in enumerate(scores):
        if all(costs[n][index] <= b for n, b in demand.budgets.items()) and found.effectiveness <= limit:
            assert found.objective <= solution.bound * (1 + 1e-9)
    assert solution.ranked == () or solution.ranked[0].score.objective >= scores[anchor].objective


# 4. Raising a budget never lowers the optimum


def test_4_a_larger_budget_never_lowers_the_optimum(census):
    for name in ("macs", "params"):
        other = {n: float(np.median(c)) for n, c in census.costs.items() if n != name}
        low, high = np.quantile(census.costs[name], [0.02, 0.9])
        limits = np.linspace(low, high, 6)
        optima = [
            solve(SMALL, Demand(budgets={**other, name: limit})).ranked[0].score.objective for limit in limits
        ]
        assert optima == sorted(optima)
        assert optima[-1] > optima[0]


# 5. A looser effectiveness allows deeper networks


def test_5_a_larger_effectiveness_allows_deeper_networks(census):
    budgets = {name: float(np.quantile(costs, 0.5)) for name, costs in census.costs.items()}
    optima, deepest = [], []
    for limit in np.linspace(0.1, 2.0, 12):
        demand = Demand(budgets=budgets, max_effectiveness=float(limit))
        found = solve(SMALL, demand).ranked
        optima.append(found[0].score.objective if found else -np.inf)
        kept = census.keeps(demand)
        blocks = (census.codes[kept][:, depth_columns()] + 1).sum(axis=1)
        deepest.append(int(blocks.max()) if kept.any() else 0)
        assert bool(found) == bool(kept.any())
    assert optima == sorted(optima) and optima[0] < optima[-1]
    assert deepest == sorted(deepest) and deepest[0] < deepest[-1]


def depth_columns():
    return [i for i, d in enumerate(SMALL.decisions) if d.name.endswith(".depth")]


def test_5_effectiveness_is_depth_over_the_geometric_mean_of_the_widths():
    stages = tuple(Stage(kind=BlockKind.CONV, out_channels=64, kernel=1, stride=1) for _ in range(6))
    blocks = Stage(kind=BlockKind.BOTTLENECK, out_channels=64, inner_channels=64, kernel=1, stride=1, depth=4)
    found = score(Structure(stages=(*stages, blocks), resolution_px=8, in_channels=64).lower())
    assert found.effectiveness == pytest.approx(18 / 64)


# 6. The resolution moves H by the exact ratio


def test_6_the_resolution_moves_the_entropy_by_the_exact_logarithm():
    for name in ("R18", "50M"):
        structure = PUBLISHED[name].structure
        small = score(replace(structure, resolution_px=224).lower())
        large = score(replace(structure, resolution_px=448).lower())
        weights = ScoreRules().tap_weights(5)
        sums = [
            entropy / tap.log_size
            for entropy, tap in zip(small.tap_entropies, trace_backbone(structure.lower()).taps, strict=True)
        ]
        moved = sum(weight * total * 2 * log(2) for weight, total in zip(weights, sums, strict=True))
        assert large.entropy - small.entropy == pytest.approx(moved, rel=1e-9)
        larger = score(replace(structure, resolution_px=288).lower())
        moved = sum(weight * total * 2 * log(288 / 224) for weight, total in zip(weights, sums, strict=True))
        assert larger.entropy - small.entropy == pytest.approx(moved, rel=1e-9)
        assert larger.effectiveness == small.effectiveness


# 7. An independent counter equals the cost model


class Projected(nn.Module):
    """A bottleneck, built as the public code does and not from a lowering."""

    def __init__(self, width_in, inner, out, kernel, stride, *, is_projected):
        super().__init__()
        self.branch = nn.Sequential(
            *conv_norm(width_in, inner, 1), nn.ReLU(),
            *conv_norm(inner, inner, kernel, stride), nn.ReLU(),
            *conv_norm(inner, out, 1),
        )  # fmt: skip
        pool = [nn.AvgPool2d(stride)] if stride > 1 else []
        self.shortcut = (
            nn.Sequential(*pool, *conv_norm(width_in, out, 1), nn.ReLU()) if is_projected else nn.Identity()
        )
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.branch(x) + self.shortcut(x))


class Squeeze(nn.Module):
    def __init__(self, width):
        super().__init__()
        inside = max(8, width // 4 // 8 * 8)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), *conv_norm(width, inside, 1), nn.ReLU(), *conv_norm(inside, width, 1),
            nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x):
        return x * self.gate(x)


class Inverted(nn.Module):
    def __init__(self, width_in, inner, out, kernel, stride):
        super().__init__()
        self.branch = nn.Sequential(
            *conv_norm(width_in, inner, 1), nn.SiLU(),
            *conv_norm(inner, inner, kernel, stride, groups=inner), nn.SiLU(),
            Squeeze(inner), *conv_norm(inner, out, 1),
        )  # fmt: skip
        self.has_shortcut = stride == 1 and width_in == out
        self.act = nn.SiLU()

    def forward(self, x):
        y = self.branch(x)
        return self.act(x + y if self.has_shortcut else y)


def conv_norm(width_in, out, kernel, stride=1, groups=1):
    conv = nn.Conv2d(width_in, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(out)


def build(structure):
    modules, width = [], structure.in_channels
    for stage in structure.stages:
        for block in range(stage.depth):
            stride = stage.stride if block == 0 else 1
            shape = (width, stage.inner_channels, stage.out_channels, stage.kernel, stride)
            if stage.kind is BlockKind.CONV:
                modules += [*conv_norm(width, stage.out_channels, stage.kernel, stride), nn.ReLU()]
            elif stage.kind is BlockKind.BOTTLENECK:
                modules.append(Projected(*shape, is_projected=block == 0))
            else:
                modules.append(Inverted(*shape))
            width = stage.out_channels
    return nn.Sequential(*modules).eval()


@torch.no_grad()
def hooked_flops(network, resolution_px):
    """What forward hooks see, by the official convention; squeeze-excites see nothing."""
    total = 0
    blind = {inside for m in network.modules() if isinstance(m, Squeeze) for inside in m.modules()}

    def count(module, inputs, output):
        nonlocal total
        if module in blind:
            return
        if isinstance(module, nn.Conv2d):
            total += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.BatchNorm2d):
            total += 2 * output.numel()
        elif isinstance(module, nn.AvgPool2d):
            total += inputs[0].numel()
        elif isinstance(module, nn.ReLU | nn.SiLU):
            total += output.numel()

    for module in network.modules():
        module.register_forward_hook(count)
    network(torch.zeros(1, 3, resolution_px, resolution_px))
    return total


@pytest.mark.parametrize("name", ["R18", "29M-224"])
def test_7_forward_hooks_count_what_the_cost_model_says(name):
    structure = replace(PUBLISHED[name].structure, resolution_px=64)
    network = build(structure)
    layers = structure.lower()
    assert hooked_flops(network, 64) == deepmad_flops(layers)
    assert sum(p.numel() for p in network.parameters()) == backbone_params(layers)


# Switches and refusals


def test_the_penalty_is_subtracted_and_follows_the_rule_of_the_family():
    bottlenecks = score(PUBLISHED["R18"].structure.lower())
    assert bottlenecks.objective == bottlenecks.entropy - 10 * exp(np.std([9, 10, 12]))
    inverted = score(PUBLISHED["29M-224"].structure.lower())
    assert inverted.penalty == pytest.approx(10 * exp(np.std([2, 4, 6, 6, 5])))
    assert score(PUBLISHED["R18"].structure.lower(), ScoreRules(spread=DepthSpread.NONE)).penalty == 0


@pytest.mark.parametrize(
    "rules",
    [
        PAPER,
        OFFICIAL,
        ScoreRules(spread=DepthSpread.NONE),
        ScoreRules(penalised_stages=PenalisedStages.ALL, last_tap_weight=2.0, penalty_weight=300.0),
    ],
)
def test_the_program_follows_every_switch(rules):
    demand = Demand(budgets={"macs": 1.5e6, "deepmad_flops": 1.9e6}, rules=rules)
    best = solve(SMALL, demand).ranked[0]
    rng = np.random.default_rng(8)
    for _ in range(300):
        layers = SMALL.lower(SMALL.sample(rng))
        costs = batch_costs(SMALL, SMALL.encode([SMALL.smallest()]), names=("macs",))
        assert costs["macs"][0] <= demand.budgets["macs"]
        if sum(map(macs_of, layers)) <= 1.5e6 and deepmad_flops(layers) <= 1.9e6:
            assert score(layers, rules).objective <= best.score.objective + 1e-9
    assert deepmad_flops(SMALL.lower(best.architecture)) == best.costs["deepmad_flops"] <= 1.9e6


def macs_of(layer):
    if layer.kind not in ("conv", "linear"):
        return 0
    weights = layer.out_channels * layer.in_channels // layer.groups * layer.kernel**2
    return weights * layer.out_height * layer.out_width


def test_a_table_of_ones_own_is_a_budget_like_any_other():
    same = solve(SMALL, Demand(budgets={"macs": 2e6})).ranked[0]
    own = solve(SMALL, Demand(budgets={"own": 2e6}), own_costs={"own": macs_of}).ranked[0]
    assert own.score.objective == pytest.approx(same.score.objective)
    assert own.costs == {"own": same.costs["macs"]}


def test_what_deepmad_does_not_score_is_refused():
    with pytest.raises(InvalidRequestError, match="residual blocks"):
        solve(SPACES["nas_bench_201"], Demand())
    with pytest.raises(InvalidRequestError, match="choose another space"):
        solve(SPACES["nas_bench_macro"], Demand())
    with pytest.raises(UnknownNameError, match="allowed: macs"):
        solve(SMALL, Demand(budgets={"latency_ms": 3.0}))
    with pytest.raises(InvalidRequestError, match="finite number above 0"):
        Demand(max_effectiveness=0.0)
