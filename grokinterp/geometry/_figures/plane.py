"""Where do runs go in the plane that holds most of their weights' motion?"""

from grokinterp.base.result import draws, found_by
from grokinterp.figures._figure import (
    COLOURS,
    PHASES,
    Figure,
    checked,
    figure,
    plain,
    says,
    series,
    square,
)
from grokinterp.geometry.plane_of_paths import WeightPlane, weight_plane


@draws(WeightPlane)
@found_by(weight_plane, WeightPlane)
def plot_weight_plane(found: WeightPlane) -> Figure:
    """Each run's path through its checkpoints in the plane, coloured by phase of training.

    A path is open at its start and ends in a diamond; checkpoints in no known phase are grey. Axes,
    in units of weight, have one scale; their titles give each component's share of the variance and
    that of random walks with the same lengths of steps.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_weight_plane(gi.load("mod31-small"))
    >>> drawn.layout.xaxis.title.text
    'component 1 (57.5%, walk 66.2%)'
    """
    checked(found, WeightPlane, "geometry.weight_plane")
    walks = sum(found.walk_shares[:2])
    drawn = figure(f"Weights in a plane<br>{found.share:.1%} of the variance, of walks {walks:.1%}")
    if not found.shares:
        return says(drawn.update_layout(title_text="Weights in a plane"), found.notes)
    table = found.table()
    several = len(set(found.runs)) > 1
    for i, (name, path) in enumerate(table.groupby("run", sort=False)):
        drawn.add_scatter(
            x=path["x1"], y=path["x2"], mode="lines", name=plain(str(name)), hoverinfo="skip",
            line={**series(i), "width": 1.5} if several else {"color": COLOURS["other"]},
            showlegend=several,
        )  # fmt: skip
    ends = table.groupby("run", sort=False)["step"]
    first, last = ends.transform("min"), ends.transform("max")
    symbols = ["circle"] * len(table)
    for at, step in enumerate(table["step"]):
        if step == last[at]:
            symbols[at] = "diamond"
        elif step == first[at]:
            symbols[at] = "circle-open"
    for phase in (*PHASES, None):
        mine = table[table["phase"].isna() if phase is None else table["phase"] == phase]
        if not len(mine):
            continue
        mine_too = [symbols[at] for at in mine.index]
        colour = COLOURS["other"] if phase is None else PHASES[phase]
        drawn.add_scatter(
            x=mine["x1"], y=mine["x2"], mode="markers",
            name="in no phase" if phase is None else phase.replace("_", " "),
            customdata=[f"{plain(run)}, step {step:,}" for run, step in
                        zip(mine["run"], mine["step"], strict=True)],
            hovertemplate="%{customdata}<br>x1 %{x:.4g}<br>x2 %{y:.4g}<extra></extra>",
            marker={"color": colour, "symbol": mine_too, "line": {"color": colour, "width": 2},
                    "size": [8 if symbol == "circle" else 13 for symbol in mine_too]},
        )  # fmt: skip
    titles = [
        f"component {i} ({share:.1%}, walk {walk:.1%})"
        for i, share, walk in zip((1, 2), found.shares, found.walk_shares, strict=False)
    ]
    titles += ["component 2 (none)"] * (2 - len(titles))
    drawn.update_layout(height=600, hovermode="closest", showlegend=True)
    drawn.update_xaxes(title_text=titles[0]).update_yaxes(title_text=titles[1])
    return square(drawn)
