"""AlphaNet (Wang et al., ICML 2021): the lettered laws of its distillation, each under its letter."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from nas.recipes import RECIPES
from supernet.training.alpha_divergence import AlphaDistillation, alpha_divergence
from supernet.training.paths import Role
from tests.training.toy import ToyBatches, slot_in, toy_recipe, toy_trainer


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_logits(*, scale=1.0, num_images=64, num_classes=10, dtype=torch.float64):
    """(teacher's, student's), the student's with a gradient."""
    generator = torch.Generator().manual_seed(0)
    pair = scale * torch.randn(2, num_images, num_classes, generator=generator, dtype=dtype)
    return pair[0], pair[1].clone().requires_grad_()


def students_losses(teacher, student, *, alphas=(-1.0, 1.0), ratio_limit=5.0):
    """The loss of each image of a student whose teacher went before."""
    distillation = AlphaDistillation(
        label_smoothing=0.1, ratio_limit=ratio_limit, alpha_min=alphas[0], alpha_max=alphas[1]
    )
    batch_loss = distillation.for_batch(torch.empty(0), torch.zeros(len(teacher)).long())
    batch_loss(slot_in(Role.MAX), teacher)
    return batch_loss(slot_in(Role.MIN), student)


def gradient(losses_n, student):
    (by_logits,) = torch.autograd.grad(losses_n.sum(), student, retain_graph=True)
    return by_logits


def divergence(p, q, alpha):
    """The definition, in the form that holds for every alpha but 0 and 1."""
    return (q * ((p / q) ** alpha - 1)).sum(1) / (alpha * (alpha - 1))


# (a)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_a_with_both_alphas_1_the_gradient_is_that_of_the_soft_cross_entropy(scale):
    teacher, student = random_logits(scale=scale)
    soft = F.cross_entropy(student, teacher.softmax(1), reduction="none")
    ours = students_losses(teacher, student, alphas=(1.0, 1.0))
    torch.testing.assert_close(gradient(ours, student), gradient(soft, student), rtol=1e-12, atol=1e-15)


def test_a_alpha_1_is_the_kullback_leibler_divergence_and_the_limit_of_its_neighbours():
    teacher, student = random_logits()
    p, q = teacher.softmax(1), student.softmax(1)
    exact, _ = alpha_divergence(q.log(), p.log(), 1.0, 5.0)
    torch.testing.assert_close(exact, (p * (p / q).log()).sum(1))
    near, _ = alpha_divergence(q.log(), p.log(), 1.0 + 1e-6, 1e9)
    torch.testing.assert_close(near, exact, rtol=1e-4, atol=1e-4)


# The choice of alpha, which no letter names but the method is about


def test_each_image_takes_the_alpha_with_the_larger_divergence():
    # The first student is sure of what the teacher finds unlikely, the second overlooks what it finds likely.
    p = torch.tensor([[0.98, 0.01, 0.01], [0.49, 0.49, 0.02]], dtype=torch.float64)
    q = torch.tensor([[0.80, 0.19, 0.01], [0.97, 0.01, 0.02]], dtype=torch.float64)
    losses = students_losses(p.log(), q.log().requires_grad_(), ratio_limit=1e6)
    low, high = divergence(p, q, -1.0), (p * (p / q).log()).sum(1)
    assert low[0] > high[0]
    assert high[1] > low[1]
    torch.testing.assert_close(losses.detach(), torch.stack([low[0], high[1]]))


def test_the_gradient_of_each_image_is_that_of_the_alpha_it_takes():
    teacher, student = random_logits()
    low, high = (students_losses(teacher, student, alphas=(alpha, alpha)) for alpha in (-1.0, 1.0))
    is_low = low > high
    assert 0 < is_low.sum() < len(is_low)
    expected = torch.where(is_low[:, None], gradient(low, student), gradient(high, student))
    assert torch.equal(gradient(students_losses(teacher, student), student), expected)


# (d)


@pytest.mark.parametrize("alpha", [-1.0, -0.5, 0.5, 2.0])
def test_d_where_nothing_is_limited_the_gradient_is_autograds_of_the_divergence(alpha):
    teacher, student = random_logits(scale=0.1)
    p, q = teacher.softmax(1), student.softmax(1)
    assert ((p / q) ** alpha).max() < 5
    ours = students_losses(teacher, student, alphas=(alpha, alpha))
    expected = divergence(p, q, alpha)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(gradient(ours, student), gradient(expected, student), rtol=1e-10, atol=1e-14)


def test_d_a_ratio_above_the_limit_counts_as_the_limit():
    teacher, student = random_logits(scale=3.0)
    p, q = teacher.softmax(1), student.softmax(1).detach()
    ratio = q / p
    assert ratio.max() > 5
    weights = q * ratio.clamp(max=5.0)
    # −Σ sg[q ρ] log q with ρ = −min(q/p, 5).
    expected = gradient((weights * student.log_softmax(1)).sum(1), student)
    ours = students_losses(teacher, student, alphas=(-1.0, -1.0))
    torch.testing.assert_close(gradient(ours, student), expected, rtol=1e-10, atol=1e-14)


def test_d_a_constant_beside_the_ratio_has_no_gradient():
    teacher, student = random_logits()
    q = student.softmax(1).detach()
    shifted = students_losses(teacher, student) - (3.0 * q * student.log_softmax(1)).sum(1)
    plain = gradient(students_losses(teacher, student), student)
    torch.testing.assert_close(gradient(shifted, student), plain, rtol=1e-10, atol=1e-14)


# Numbers at their ends


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_of_any_size_give_finite_losses_and_gradients(dtype):
    size = 6e4 if dtype is torch.float16 else 1e30
    extremes = torch.tensor([[size, -size, 0.0], [-size, size, 0.0], [0.0, 0.0, 0.0], [size, size, -size]])
    for shift in range(4):
        teacher, student = extremes.to(dtype), extremes.roll(shift, 0).to(dtype).requires_grad_()
        losses = students_losses(teacher, student)
        assert losses.isfinite().all()
        assert gradient(losses, student).isfinite().all()
        assert (losses >= -1e-6).all()


def test_with_a_limit_a_students_gradient_stays_small_whatever_it_predicts():
    """Of a student that is sure it would without one: its softmax lets nothing through."""
    sure, unsure, undecided = [0.0, 50.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]
    student = torch.tensor([sure, unsure, undecided], requires_grad=True)
    teacher = torch.tensor([[50.0, 0.0, 0.0]]).expand(3, -1)
    losses = students_losses(teacher, student, alphas=(-1.0, -1.0))
    assert gradient(losses, student).abs().max() <= 5


# In a run


def test_students_learn_towards_the_largest_network_alone():
    teacher, student = random_logits()
    labels = torch.arange(len(teacher)) % 10
    distillation = AlphaDistillation(label_smoothing=0.1, ratio_limit=5.0)
    told = []
    for given in (labels, labels.flip(0)):
        batch_loss = distillation.for_batch(torch.empty(0), given)
        told.append((batch_loss(slot_in(Role.MAX), teacher), batch_loss(slot_in(Role.RANDOM), student)))
    assert not torch.equal(told[0][0], told[1][0])
    assert torch.equal(told[0][1], told[1][1])
    expected = F.cross_entropy(teacher, labels, reduction="none", label_smoothing=0.1)
    assert torch.equal(told[0][0], expected)


def test_no_gradient_of_a_student_reaches_its_teacher():
    teacher, student = random_logits()
    teacher = teacher.requires_grad_()
    students_losses(teacher, student).sum().backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_a_student_before_its_teacher_is_a_bug_and_says_so():
    distillation = AlphaDistillation(label_smoothing=0.1, ratio_limit=5.0)
    batch_loss = distillation.for_batch(torch.empty(0), torch.zeros(2).long())
    with pytest.raises(RuntimeError, match="'min' came before 'max'"):
        batch_loss(slot_in(Role.MIN), torch.zeros(2, 4))


def test_alpha_0_is_refused():
    with pytest.raises(ValueError, match=r"alpha 0 .* choose"):
        AlphaDistillation(label_smoothing=0.1, ratio_limit=5.0, alpha_min=0.0)


def test_the_recipe_is_a_sandwich_that_limits_ratios_and_gradients():
    recipe = RECIPES["alphanet"]
    assert recipe == replace(
        RECIPES["bignas"],
        name="alphanet",
        distillation="alpha",
        base_learning_rate=0.1,
        learning_rate_policy="cosine",
        floor_fraction=1e-6,
    )
    assert (recipe.ratio_limit, recipe.clip, recipe.clip_threshold) == (5.0, "value", 1.0)


def test_the_smallest_network_comes_to_know_the_labels_which_it_never_sees():
    trainer = toy_trainer(recipe=toy_recipe("alphanet", epochs=10, batch_size=16, base_learning_rate=0.05))
    smallest = trainer.supernet.space.smallest()
    images, labels = ToyBatches(batch_size=64).batch(900)

    def accuracy():
        with torch.no_grad():
            return (trainer.supernet.train()(images, smallest).argmax(1) == labels).float().mean().item()

    before = accuracy()
    trainer.run()
    assert accuracy() > max(0.8, before + 0.3)
