import pandas as pd
import pytest

import grokinterp as gi


def test_phases_are_shaded_where_they_are(shipped, shipped_measures):
    found = gi.detect_phases(shipped, measures=shipped_measures)
    figure = found.plot()
    assert [trace.name for trace in figure.data] == ["train loss", "test loss"]
    shaded = [(shape.x0, shape.x1) for shape in figure.layout.shapes if shape.type == "rect"]
    assert shaded == [(phase.start, phase.end) for phase in found.phases]
    assert "grokked" in figure.layout.title.text
    assert "nats" in figure.layout.yaxis.title.text


def test_accuracies_alone_are_drawn_too(shipped):
    found = gi.detect_phases(shipped.metrics[["step", "test_acc"]])
    assert [trace.name for trace in found.plot().data] == ["test accuracy"]
    assert gi.detect_phases(pd.DataFrame({"step": [0], "test_loss": [1.0]})).plot().data


def test_every_frequency_has_its_bar(shipped):
    found = gi.key_frequencies(shipped.snapshot())
    key, other = found.plot().data
    assert tuple(key.x) == found.frequencies
    assert sorted([*key.x, *other.x]) == list(range(1, 57))
    assert dict(zip(key.x, key.y, strict=True)) == {k: found.shares[k] for k in found}


def test_a_task_without_frequencies_has_nothing_to_draw(tiny, tmp_path):
    run = gi.train(tiny.replace(operation="random", steps=0), tmp_path / "run")
    with pytest.raises(gi.InputError, match="no frequencies to draw"):
        gi.key_frequencies(run).plot()
