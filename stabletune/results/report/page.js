"use strict";
// Draws the charts in the colors of the page's own style, and sorts tables by their heads.
(() => {
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const roleColor = (role) => color(role === "nearest" || role === "best so far" ? "recommended" : role);
  const symbols = {completed: "circle", stopped: "square", diverged: "triangle-up", pruned: "circle-open", failed: "x"};
  const ranks = {recommended: 1, nearest: 1, "best so far": 1, baseline: 2};
  const quiet = {displayModeBar: false, responsive: true};

  const traceOf = (trace, named) => {
    const stroke = roleColor(trace.role);
    if (trace.z) return {type: "heatmap", x: trace.x, y: trace.y, z: trace.z, zmin: 0, zmax: 1, zsmooth: false,
      colorscale: [[0, color("diverged")], [0.5, color("ground")], [1, color("completed")]], opacity: 0.35,
      colorbar: {title: {text: trace.name, side: "right"}, tickformat: ".0%", thickness: 12},
      hovertemplate: `%{z:.0%} ${trace.name}<extra></extra>`};
    const key = trace.name + (trace.is_mark ? trace.role : "");
    const isFirst = !named.has(key);
    named.add(key);
    const shared = {x: trace.x, y: trace.y, name: trace.is_mark ? `${trace.role}: spike` : trace.name,
      legendgroup: key, showlegend: isFirst,
      legendrank: (ranks[trace.role] ?? 5) + (trace.is_mark ? 2 : 0), yaxis: trace.axis === 2 ? "y2" : "y"};
    if (trace.is_scatter) return {...shared, mode: "markers", text: trace.text,
      hovertemplate: "%{text}<extra></extra>",
      marker: {color: stroke, symbol: symbols[trace.role], size: 9, line: {width: 1.5, color: stroke}}};
    if (trace.is_mark) return {...shared, mode: "markers", cliponaxis: false,
      hovertemplate: `${trace.label}<br>step %{x}, loss %{y}<extra></extra>`,
      marker: {color: stroke, symbol: "triangle-up", size: 9, line: {width: 1, color: color("ground")}}};
    return {...shared, mode: trace.x.length < 80 ? "lines+markers" : "lines", marker: {size: 4, color: stroke},
      connectgaps: false,
      line: {color: stroke, width: 1.4}, opacity: 0.85,
      hovertemplate: `${trace.label}<br>step %{x}: %{y}<extra></extra>`};
  };

  // Labels of a logarithmic axis: at most six powers of ten, with 2 and 5 between them when there are few.
  const decades = (values) => {
    const logs = values.filter((value) => value > 0).map(Math.log10);
    return logs.reduce((a, b) => Math.max(a, b), -Infinity) - logs.reduce((a, b) => Math.min(a, b), Infinity);
  };
  const axisOf = (axis, values) => ({title: {text: axis.title, standoff: 8}, type: axis.log ? "log" : "-",
    ...(axis.log && decades(values) > 0.5 ? {dtick: decades(values) < 2 ? "D2" : Math.ceil(decades(values) / 6)} : {}),
    rangemode: axis.from_zero && !axis.log ? "tozero" : "normal", exponentformat: "power", automargin: true,
    gridcolor: color("line"), zerolinecolor: color("line"), linecolor: color("line")});

  const layoutOf = (chart) => {
    const all = (key, axis) => chart.traces.filter((trace) => (trace.axis ?? 1) === axis).flatMap((trace) => trace[key]);
    const layout = {margin: {l: 60, r: 12, t: 34, b: 46}, hovermode: "closest",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: {color: color("text"), family: "system-ui, sans-serif", size: 13},
      hoverlabel: {bgcolor: color("raised"), bordercolor: color("line"), font: {color: color("text")}, align: "left"},
      legend: {orientation: "h", x: 0, y: 1, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)"}, shapes: [], annotations: [],
      xaxis: {...axisOf({title: chart.x, log: chart.x_log}, all("x", 1)), anchor: chart.axes.length > 1 ? "y2" : "y"},
      yaxis: axisOf(chart.axes[0], all("y", 1))};
    if (chart.axes.length > 1) {
      layout.yaxis.domain = [0.42, 1];
      layout.yaxis2 = {...axisOf(chart.axes[1], all("y", 2)), domain: [0, 0.34]};
    }
    const edge = chart.axes[0].edge;
    if (edge !== undefined) {
      layout.shapes.push({type: "line", xref: "paper", x0: 0, x1: 1, yref: "y", y0: edge, y1: edge,
        line: {color: color("edge"), width: 1.5, dash: "dash"}});
      layout.annotations.push({xref: "paper", x: 1, yref: "y", y: chart.axes[0].log ? Math.log10(edge) : edge,
        text: "edge", showarrow: false,
        xanchor: "right", yanchor: "bottom", font: {color: color("edge"), size: 12}});
    }
    return layout;
  };

  const ringOf = (chart) => ({x: [chart.ring[0]], y: [chart.ring[1]], mode: "markers", hoverinfo: "skip",
    showlegend: false, marker: {symbol: "circle-open", size: 20, color: color("text"), line: {width: 2}}});

  const charts = JSON.parse(document.getElementById("charts").textContent);
  const draw = () => charts.forEach((chart) => {
    const named = new Set();
    const traces = chart.traces.map((trace) => traceOf(trace, named));
    if (chart.ring) traces.push(ringOf(chart));
    Plotly.react(chart.id, traces, layoutOf(chart), quiet);
  });
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  const valueOf = (cell) => {
    const text = cell.textContent.replaceAll(",", "").trim();
    const value = parseFloat(text);
    return text === "–" ? Infinity : Number.isNaN(value) ? text : value;
  };
  const compare = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
  document.querySelectorAll("table.sortable").forEach((table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const isRising = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", isRising ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => (isRising ? 1 : -1) * compare(valueOf(a.cells[column]), valueOf(b.cells[column])));
        table.tBodies[0].append(...rows);
      });
    });
  });
})();
