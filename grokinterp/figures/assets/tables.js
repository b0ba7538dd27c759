// The data of a panel, as CSV.

const list = (values, count) => values ?? Array.from({ length: count }, (_, i) => i);

// A row for every point: the trace's name, x, y (and z, or value), and what `meta.columns` names
// of its customdata. Titles of axes are those of the figure where a panel has none of its own.
function traceRows(trace, layout) {
  if (trace.meta?.marks) return []; // they mark what another trace has
  const name = plain(trace.name ?? "");
  const axis = (which) => {
    const own = (trace[`${which}axis`] ?? which).replace(which, `${which}axis`);
    const every = Object.keys(layout).filter((key) => key.startsWith(`${which}axis`));
    const titles = [own, ...every].map((key) => plain(layout[key]?.title?.text ?? ""));
    return titles.find((title) => title) ?? which;
  };
  if (trace.type === "sankey") {
    const { source, target, value } = trace.link;
    return Array.from(source, (_, i) => ({
      source: plain(trace.node.label[source[i]]), target: plain(trace.node.label[target[i]]),
      value: value[i],
    }));
  }
  if (trace.type === "heatmap") {
    const rows = [...trace.z];
    const xs = [...list(trace.x, rows[0]?.length ?? 0)];
    const ys = [...list(trace.y, rows.length)];
    return ys.flatMap((y, i) => xs.map((x, j) => (
      { panel: name, [axis("y")]: y, [axis("x")]: x, value: rows[i][j] }
    )));
  }
  const columns = trace.meta?.columns ?? [];
  return Array.from(trace.x ?? [], (x, i) => ({
    series: name, [axis("x")]: x, [axis("y")]: trace.y[i],
    ...Object.fromEntries(columns.map((column, j) => [column, trace.customdata[i][j]])),
  }));
}

function csvOf(rows) {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const cell = (value) => {
    const text = value === null || value === undefined || Number.isNaN(value) ? "" : `${value}`;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [columns, ...rows.map((row) => columns.map((name) => row[name]))];
  return `${lines.map((line) => line.map(cell).join(",")).join("\n")}\n`;
}

function download(text, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = `${name}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // once it has been read
}
