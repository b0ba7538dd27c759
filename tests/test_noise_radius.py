"""The noise that weights bear, against networks whose radius is known."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import grokinterp as gi
from grokinterp.geometry.loss_surface import loss_surface
from tests.small_runs import each_trained_once


class Thresholds(nn.Module):
    """Class 1 where an operand exceeds one weight: so much noise in it changes the answer."""

    def __init__(self, at):
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor([at], dtype=torch.float64))

    def forward(self, pairs):
        above = pairs[:, :1].double() - self.threshold
        return torch.cat([-above, above], dim=1)


@dataclass(frozen=True, kw_only=True)
class Above(gi.tasks.TableTask):
    n_classes = 2

    def inputs(self):
        return torch.tensor([[a, b] for a in range(4) for b in range(4)])

    def answers(self):
        return (self.inputs()[:, 0] >= 2).long()


def test_the_radius_of_a_threshold():
    """Noise moves the one weight, 1.75, up or down: answers change where it is 1 and 2."""
    net, task = Thresholds(1.75), Above()
    found = gi.geometry.noise_radius(net, task=task, n_draws=8, keep=0.9)
    # accuracy is .75 beyond either threshold, less than .9: sigma is 0.25 / 1.75 or 0.75 / 1.75
    radii = found.radii.flatten().tolist()
    expected = {round(x / 1.75, 2) for x in (0.25, 0.75)}
    assert {round(x, 2) for x in radii} == expected
    row = found.table().iloc[0]
    assert (row["rows"], row.n, row.accuracy) == ("all", 16, 1.0)
    assert row.radius_least == pytest.approx(0.25 / 1.75, rel=0.005)
    assert row.radius_most == pytest.approx(0.75 / 1.75, rel=0.005)
    assert row.radius_absolute == pytest.approx(row.radius * 1.75)
    assert any("split is not known" in note for note in found.notes)
    # below .7 only beyond the next operand, 3 or 0, where it is .5
    row = gi.geometry.noise_radius(net, task=task, n_draws=8, keep=0.7).table().iloc[0]
    assert row.radius_least == pytest.approx(1.25 / 1.75, rel=0.005)
    assert row.radius_most == pytest.approx(1.75 / 1.75, rel=0.005)


def test_at_the_radius_accuracy_falls_below_what_is_to_be_kept():
    run = gi.load("mod31-small")
    found = gi.geometry.noise_radius(run, n_draws=2, keep=0.8, seed=5)
    surface = loss_surface(run)
    generator = torch.Generator().manual_seed(5)
    for radius in found.radii[0, 0].tolist():
        noise = torch.randn(surface.n_weights, generator=generator, dtype=torch.float64)
        for part in surface.tensors(noise).values():
            part /= part.norm()
        for name, part in surface.tensors(noise).items():
            part *= surface.tensors(surface.theta)[name].norm()
        assert surface.accuracy(surface.theta + 0.99 * radius * noise) >= 0.8
        assert surface.accuracy(surface.theta + 1.01 * radius * noise) < 0.8


class TestWhatItCannotSay:
    def test_answers_that_are_guesses(self):
        found = gi.geometry.noise_radius("mod31-small", [0, 300], n_draws=1)
        assert found.radii[0].isnan().all()
        assert found.radii[1].isnan().flatten().tolist() == [False, True]
        assert any("no radius of test inputs at [0, 300]" in note for note in found.notes)
        assert found.plot().data

    def test_noise_that_changes_nothing(self):
        """Without a threshold within reach there is no radius, and no loop without end."""

        class Certain(nn.Module):
            def __init__(self):
                super().__init__()
                self.small = nn.Parameter(torch.full((1,), 1e-9, dtype=torch.float64))

            def forward(self, pairs):
                above = pairs[:, :1].double() - 1.5 + self.small
                return torch.cat([-above, above], dim=1)

        found = gi.geometry.noise_radius(Certain(), task=Above(), n_draws=2)
        assert found.radii.isnan().all()
        assert any("changes too little" in note for note in found.notes)
        assert math.isnan(found.table().radius.item())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"keep": 0}, "keep=0 is not"),
            ({"keep": 1.5}, "keep=1.5 is not"),
            ({"n_draws": 0}, "n_draws=0 is not a whole number from 1 on"),
            ({"n_samples": 0}, "n_samples=0 is not a whole number from 1 on"),
            ({"step": [10_000, 300]}, "do not rise"),
        ],
    )
    def test_bad_input(self, options, message):
        with pytest.raises(gi.InputError, match=message):
            gi.geometry.noise_radius("mod31-small", **options)


class TestRows:
    def test_test_rows_are_those_whose_mirror_is_not_trained_on(self):
        found = gi.geometry.noise_radius("mod31-small", n_draws=1)
        assert (found.parts, found.sizes) == (("train", "test"), (624, 122))
        assert "test: over the 122 of 337 test pairs whose mirror is not trained on" in found.notes

    def test_everything_is_trained_on(self, tmp_path):
        found = gi.geometry.noise_radius(each_trained_once(tmp_path)(train_fraction=1.0), n_draws=1)
        assert found.parts == ("train",)
        assert any("every input is trained on" in note for note in found.notes)
        columns = gi.progress.MEASURES["noise_radius"].columns_of_run(
            each_trained_once(tmp_path / "again")(weight_decay=0.1)
        )
        assert set(columns) == {"noise_radius_train", "noise_radius_test"}

    def test_a_sample_is_drawn_by_seed(self):
        one, same, other = (
            gi.geometry.noise_radius("mod31-small", n_draws=1, n_samples=100, seed=seed).radii
            for seed in (1, 1, 2)
        )
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize(("step", "radius"), [(1200, 0.20), (4800, 0.27), (12000, 0.59)])
def test_of_a_grokked_run(step, radius):
    table = gi.geometry.noise_radius("mod113-grokked", step).table().set_index("rows")
    assert table.radius["train"] == pytest.approx(radius, rel=0.2)
