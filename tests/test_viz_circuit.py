from dataclasses import replace
from itertools import pairwise

import pytest

from grokinterp.circuits.circuit import CircuitGraph, Edge
from grokinterp.figures._figure import COLOURS, series
from grokinterp.figures.slider import over_training

NODES = (
    ("embedding k=2", "embedding"), ("embedding k=5", "embedding"),
    ("embedding other", "embedding"),
    ("head 0.0", "heads"), ("head 0.1", "heads"),
    ("neurons k=2", "neurons"), ("neurons k=5", "neurons"), ("neurons k=7", "neurons"),
    ("other neurons", "neurons"), ("logits k=2", "logits"), ("logits k=5", "logits"),
)  # fmt: skip
EDGES = (
    Edge("embedding k=2", "head 0.0", 0.9, 1.5, 1.25),
    Edge("embedding k=5", "head 0.1", 0.8, 1.0, 0.75),
    Edge("embedding other", "head 0.1", 0.002, 0.25, 0.0),
    Edge("head 0.0", "neurons k=2", 0.7, 0.5, 0.25),
    Edge("head 0.1", "neurons k=5", 0.6, 0.5, 0.25),
    Edge("head 0.1", "neurons k=7", 0.5, 0.24, -0.01),
    Edge("head 0.1", "other neurons", 1.5, 0.25, 0.0),
    Edge("neurons k=2", "logits k=2", 1.0, 0.5, 0.25),
    Edge("neurons k=5", "logits k=5", 1.0, 0.5, 0.25),
    Edge("neurons k=7", "logits k=5", 0.0, 0.25, 0.0),
)


@pytest.fixture
def graph():
    return CircuitGraph(nodes=NODES, edges=EDGES, frequencies=(2, 5), loss=0.25, step=100)


def named(drawn):
    """(source, target): what is drawn of the link between them."""
    names = drawn.node.customdata
    return {
        (names[source], names[target]): (value, colour, text)
        for source, target, value, colour, text in zip(
            *(drawn.link[n] for n in ("source", "target", "value", "color", "customdata")),
            strict=True,
        )
    }


def test_every_band_is_as_wide_as_its_share(graph):
    (drawn,) = graph.plot().data
    links = named(drawn)
    assert {ends: value for ends, (value, *_) in links.items()} == {
        (edge.source, edge.target): edge.share for edge in EDGES if edge.share
    }
    text = links["head 0.1", "neurons k=7"][2]
    assert "share 0.5" in text
    assert "change -0.01" in text
    assert "0.24 nats" in text


def test_colours_are_those_of_the_frequencies(graph):
    (drawn,) = graph.plot().data
    colours = dict(zip(drawn.node.customdata, drawn.node.color, strict=True))
    for i, k in enumerate((2, 5)):
        for part in ("embedding", "neurons", "logits"):
            assert colours[f"{part} k={k}"] == series(i)["color"]
    for grey in ("embedding other", "head 0.0", "neurons k=7", "other neurons"):
        assert colours[grey] == COLOURS["other"]
    links = named(drawn)
    red, green, blue = (int(series(1)["color"][i : i + 2], 16) for i in (1, 3, 5))
    expected = f"rgba({red},{green},{blue},0.450)"
    assert links["embedding k=5", "head 0.1"][1] == expected  # where it comes from
    assert links["head 0.1", "neurons k=5"][1] == expected  # of a head: where it goes to
    assert links["embedding other", "head 0.1"][1].endswith(",0.045)")  # 0.45 * 0.002 / 0.02


def test_columns_are_in_order_and_nodes_do_not_overlap(graph):
    drawn = graph.plot().data[0]
    labels = dict(zip(drawn.node.customdata, drawn.node.label, strict=True))
    assert [labels[name] for name in ("embedding k=2", "head 0.1", "other neurons")] == [
        "k=2", "1", "other",
    ]  # fmt: skip
    at = dict(zip(drawn.node.customdata, zip(drawn.node.x, drawn.node.y, strict=True), strict=True))
    columns = [[at[name] for name, layer in NODES if layer == own] for own in (
        "embedding", "heads", "neurons", "logits"
    )]  # fmt: skip
    across = [{x for x, _ in column} for column in columns]
    assert all(len(x) == 1 for x in across)
    assert [*map(max, across)] == sorted(map(max, across))
    for column in columns:
        assert [y for _, y in column] == sorted(y for _, y in column)
    sizes = graph.node_table().set_index("node")[["share_in", "share_out"]].max(axis=1)
    scale = 1 / sizes[[name for name, layer in NODES if layer == "neurons"]].sum()
    for own in ("embedding", "heads", "neurons", "logits"):
        names = [name for name, layer in NODES if layer == own and name in at]
        for above, below in pairwise(names):
            apart = at[below][1] - at[above][1]
            assert apart > scale * 0.8 * (sizes[above] + sizes[below]) / 2


def test_a_cluster_that_has_not_formed_is_no_node_and_keeps_its_place(graph):
    gone = "neurons k=2"
    early = replace(
        graph,
        nodes=tuple(node for node in NODES if node[0] != gone),
        edges=tuple(edge for edge in EDGES if gone not in (edge.source, edge.target)),
        step=0,
    )
    (drawn,) = early.plot().data
    # Of a node without a band plotly would draw nothing, and give its place to the next one.
    linked = {*drawn.link.source, *drawn.link.target}
    assert linked == set(range(len(drawn.node.label)))
    assert gone not in drawn.node.customdata
    assert "logits k=2" not in drawn.node.customdata
    column = {
        name: y
        for name, y in zip(drawn.node.customdata, drawn.node.y, strict=True)
        if "neurons" in name
    }
    packed = replace(early, frequencies=(5,)).plot().data[0]  # without a place for k = 2
    first = dict(zip(packed.node.customdata, packed.node.y, strict=True))["neurons k=5"]
    assert list(column) == ["neurons k=5", "neurons k=7", "other neurons"]
    assert column["neurons k=5"] > first
    moving = over_training({0: early.plot(), 100: graph.plot()})
    assert [frame.data[0].link.value for frame in moving.frames] == [
        drawn.link.value, graph.plot().data[0].link.value,
    ]  # fmt: skip


def test_a_graph_without_any_share_is_drawn_empty(graph):
    edges = tuple(replace(edge, share=0.0) for edge in EDGES)
    (drawn,) = replace(graph, edges=edges).plot().data
    assert not drawn.link.value
