// A figure is drawn while its page is read, when the column is still wider than it will be.
window.addEventListener("load", () => {
  if (!window.Plotly) return;
  for (const figure of document.querySelectorAll(".plotly-graph-div")) Plotly.Plots.resize(figure);
});
