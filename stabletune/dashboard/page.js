"use strict";
// Asks for the state every two seconds and shows it. Everything that comes from files is set as text, never as HTML.
(() => {
  const byId = (id) => document.getElementById(id);
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const shown = (value) => value === null || value === undefined ? "–"
    : typeof value !== "number" || Number.isInteger(value) ? String(value)
    : Math.abs(value) < 1e-3 ? value.toExponential(3) : Number(value.toPrecision(4)).toString();

  const heads = {n_spikes: "spikes", max_sharpness_ratio: "max S", lr_scale: "lr ×", beta2_cap: "beta2 at most", gradient_scale: "gradient ×", sharpness_ratio: "S"};

  const fill = (table, rows, columns) => {
    table.replaceChildren();
    const head = table.createTHead().insertRow();
    columns.forEach((column) => { const cell = document.createElement("th"); cell.textContent = heads[column] ?? column; head.append(cell); });
    const body = table.createTBody();
    rows.forEach((row) => {
      const line = body.insertRow();
      columns.forEach((column) => {
        const cell = line.insertCell();
        const text = document.createElement("span");
        text.textContent = shown(row[column]);
        if (["reason", "message"].includes(column)) text.className = "reason";
        if (column === "status") text.className = `status ${["completed", "stopped", "diverged", "pruned", "failed"].includes(row[column]) ? row[column] : ""}`;
        cell.append(text);
      });
    });
  };

  const marksOf = (run) => ({x: run.spikes[0], y: run.spikes[1], name: "spiked", mode: "markers",
    marker: {size: 9, symbol: "triangle-up", color: color("stopped"), line: {width: 1, color: color("ground")}}});

  const draw = (id, runs, {log, edge}) => {
    const traces = runs.map((run) => ({x: run[id][0], y: run[id][1], name: run.label.replace(/[<>&]/g, ""),
      mode: run[id][0].length < 80 ? "lines+markers" : "lines", line: {width: 1.3}, marker: {size: 4}}));
    if (id === "loss") traces.push(...runs.filter((run) => run.spikes?.[0].length).map(marksOf));
    const axis = {gridcolor: color("line"), zeroline: false};
    const layout = {margin: {l: 60, r: 10, t: 10, b: 40}, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: {color: color("text")}, showlegend: true, legend: {orientation: "h", yanchor: "bottom", y: 1.02, entrywidth: 200}, uirevision: "kept",
      xaxis: {...axis, title: {text: "step"}}, yaxis: {...axis, type: log ? "log" : "linear", uirevision: log},
      shapes: edge ? [{type: "line", xref: "paper", x0: 0, x1: 1, y0: edge, y1: edge, line: {color: color("edge"), dash: "dash"}}] : []};
    Plotly.react(id, traces, layout, {displayModeBar: false, responsive: true});
  };

  const show = (state) => {
    byId("name").textContent = state.name ?? "stabletune";
    document.title = `${state.name ?? ""} · stabletune`;
    const counts = Object.entries(state.counts ?? {}).map(([status, n]) => `${n} ${status}`).join(", ");
    byId("progress").textContent = state.kind === "training"
      ? `a watched training, step ${shown(state.step)}, ${state.level}`
      : `${Object.values(state.counts).reduce((a, b) => a + b, 0)} of ${shown(state.n_trials)} trials (${counts || "none yet"}), ${state.n_proof_runs} proof runs, ${state.n_running} running`
        + (state.seconds_silent > 30 ? `; nothing heard of them for ${Math.round(state.seconds_silent)} seconds, the search may have been killed` : "");
    byId("verdict").hidden = !state.outcome;
    byId("outcome").textContent = state.outcome ?? "";
    byId("settings").textContent = state.recommended ? Object.entries(state.recommended)
      .filter(([, value]) => typeof value !== "object").map(([name, value]) => `${name} ${shown(value)}`).join(", ") : "";
    Object.entries(state.axes).forEach(([id, axis]) => draw(id, state.runs, axis));
    byId("alerts-section").hidden = state.alerts.length === 0;
    fill(byId("alerts"), state.alerts, ["step", "level", "message"]);
    byId("decisions-section").hidden = state.decisions.length === 0;
    fill(byId("decisions"), state.decisions, ["step", "mode", "lr_scale", "beta2_cap", "gradient_scale", "sharpness_ratio", "reason"]);
    byId("rows-section").hidden = state.rows.length === 0;
    fill(byId("rows"), state.rows, ["run", "status", "steps", "lr", "beta2", "objective", "n_spikes",
      "max_sharpness_ratio", "cause", "reason"]);
  };

  const ask = async () => {
    try {
      const answer = await fetch("/state", {cache: "no-store"});
      const state = await answer.json();
      if (state.error) byId("progress").textContent = state.error;
      else show(state);
    } catch (error) {
      byId("progress").textContent = "stabletune dashboard has stopped.";
    }
    setTimeout(ask, 2000);
  };
  ask();
})();
