"""Is the answer known before it is given?"""

from grokinterp.base.result import draws, found_by
from grokinterp.figures._figure import (
    COLOURS,
    SERIES,
    STEPS,
    Figure,
    checked,
    faded,
    figure,
    known_alone,
    plain,
    series,
)
from grokinterp.geometry.known_but_not_used import Routing, routing
from grokinterp.progress._figures.curves import shade

OWN = (COLOURS["test"], COLOURS["other"])  # of the network and of placebos: no hook has them


@draws(Routing)
@found_by(routing, Routing)
def plot_routing(found: Routing) -> Figure:
    """How often the answer is read at each hook, and how often the network gives it, over steps.

    Above, on unmirrored test inputs, the accuracy of the decoder at every hook, of its best placebo
    (the largest over the hooks) and of the network; the gap between the last hook and the network
    is filled where it is above 0. Below the gap and what it is made of, where that is known:
    interference, which goes when neurons hold their key part alone, and readout, the rest. Phases
    of training are shaded.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_routing(gi.load("mod31-small"), step=[0, 400, 10_000])
    >>> [line.name for line in drawn.data][1:5]
    ['blocks.0.mlp.hook_post', 'blocks.0.hook_resid_post', 'best placebo', 'the network']
    """
    checked(found, Routing, "geometry.routing")
    table, split = found.table(), found.split()
    parts = bool(split["interference"].notna().any())
    title = "no presence"
    if found.peak is not None:
        step, gap = found.peak
        title = f"largest gap {gap:.2f}, at step {step:,}"
    drawn = figure(f"Known but not used<br>{title}", STEPS, "accuracy")
    drawn.set_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08, row_heights=[0.62, 0.38]
    )
    drawn.update_xaxes(title_text=None)
    drawn.update_xaxes(title_text=STEPS, row=2, col=1)
    how = {"mode": "lines+markers" if len(split) > 1 else "markers", "hovertemplate": "%{y:.3f}"}
    steps, given = split["step"].tolist(), split["accuracy"]
    above = split["presence"].where(split["presence"] > given, given)
    drawn.add_scatter(
        x=[*steps, *steps[::-1]], y=[*above, *given[::-1]], fill="toself", mode="lines",
        fillcolor=faded(COLOURS["test"], 0.25), line={"width": 0}, hoverinfo="skip", name="gap",
        row=1, col=1,
    )  # fmt: skip
    free = [i for i in range(len(SERIES) * 4) if series(i)["color"] not in OWN]
    for i, hook in zip(free, found.hooks, strict=False):
        mine = table[table["hook"] == hook]
        drawn.add_scatter(
            x=mine["step"], y=mine["presence"], name=plain(hook), line=series(i),
            marker={"size": 4}, row=1, col=1, **how,
        )  # fmt: skip
    worst = table.groupby("step", sort=False)["placebo_max"].max()
    drawn.add_scatter(
        x=worst.index, y=worst, name="best placebo", line={"color": COLOURS["other"]},
        marker={"size": 4}, row=1, col=1, **how,
    )  # fmt: skip
    drawn.add_scatter(
        x=steps, y=given, name="the network", line={"color": COLOURS["test"], "width": 3},
        marker={"size": 5}, row=1, col=1, **how,
    )  # fmt: skip
    lines = {"gap": ("gap", {"color": COLOURS["test"]})}
    if parts:
        lines |= {
            "interference": ("interference", {"color": SERIES[3], "dash": "dash"}),
            "readout": ("readout", {"color": SERIES[0], "dash": "dot"}),
        }
    for column, (name, line) in lines.items():
        drawn.add_scatter(
            x=steps, y=split[column], name=name, line=line, marker={"size": 4},
            showlegend=column != "gap", row=2, col=1, **how,
        )  # fmt: skip
    drawn.update_yaxes(title_text="accuracy", range=[-0.03, 1.03], row=1, col=1)
    drawn.update_yaxes(title_text="difference of accuracies", row=2, col=1)
    drawn.add_hline(0, row=2, col=1, line={"dash": "dot", "width": 1, "color": COLOURS["other"]})
    drawn.update_layout(hovermode="x unified", height=700, showlegend=True)
    drawn.update_layout(margin={"b": 130})
    if len(steps) > 1:
        shade(drawn, found, last=steps[-1])
    return known_alone(drawn, found.notes)
