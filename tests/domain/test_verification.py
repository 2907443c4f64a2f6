"""What the trainings of a verification are, and that every recipe has a form for one network."""

from dataclasses import replace

import pytest

from nas.recipe import Recipe
from nas.recipes import RECIPES, recipe_from_json
from nas.verification import Training, alone_recipe, plan_runs


@pytest.mark.parametrize("name", RECIPES)
def test_every_named_recipe_has_a_form_for_one_network(name):
    recipe = alone_recipe(RECIPES[name], 0.05)
    assert recipe_from_json(recipe.to_json()) == recipe
    assert (recipe.num_random, recipe.distillation, recipe.dropout) == (1, "none", 0.0)
    assert (recipe.schedule, recipe.base_learning_rate) == ("static", 0.05)


def test_what_only_phases_have_is_left_out():
    phased = replace(RECIPES["ofa"], restart_momentum=True, freeze_transforms=True)
    recipe = alone_recipe(phased, 0.05)
    assert not recipe.restart_momentum
    assert not recipe.freeze_transforms
    assert recipe.learning_rate_policy == "cosine"


def test_weights_go_with_the_draws_that_they_make_up_for():
    recipe = alone_recipe(replace(RECIPES["panda"], importance_weighting="exact"), 0.05)
    assert (recipe.data_sampler, recipe.importance_weighting) == ("uniform", "none")


def test_the_grid_is_every_training_at_every_rate():
    runs = plan_runs(Recipe(epochs=20, base_learning_rate=0.8), [Training.ALONE, Training.FINE_TUNED])
    assert [(run.training, run.learning_rate, run.epochs) for run in runs] == [
        *((Training.ALONE, pytest.approx(rate), 20) for rate in (0.1, 0.2, 0.4, 0.8)),
        *((Training.FINE_TUNED, pytest.approx(rate), 4) for rate in (0.0125, 0.025, 0.05, 0.1)),
    ]


def test_what_is_given_holds_for_every_training():
    runs = plan_runs(Recipe(epochs=2), list(Training), rates=[0.3], epochs=7)
    assert [(run.learning_rate, run.epochs) for run in runs] == [(0.3, 7)] * 2


def test_fine_tuning_takes_an_epoch_at_least():
    (run,) = plan_runs(Recipe(epochs=1), [Training.FINE_TUNED], rates=[0.1])
    assert run.epochs == 1


def test_no_training_is_no_run():
    assert plan_runs(Recipe(), []) == []
