"""Information geometry: how far apart models are, and how straight training went.

`fisher`, `metric`, `step_geometry` measure steps of the weights in the Fisher metric;
`predictions`, `paths`, `trajectories` the motion of what a model predicts. Everything public is in
`grokinterp.encodings`.
"""
