// Draws the report's figures where a hand can ask them, in place of the pictures that are printed.
// What it shows was made by mrkolla/results/live.py and stands in the page as JSON: here is no number of its own.
"use strict";
(() => {
  const page = JSON.parse(document.getElementById("live").textContent);
  const off = { region: new Set(), repetition: new Set() };
  const drawn = new Map();
  const GREY = "#e3e3e3";
  Chart.defaults.font = { family: "system-ui, sans-serif", size: 11 };
  Chart.defaults.color = "#333";
  Chart.defaults.animation = false;

  const make = (name, text, within, kind) => {
    const one = document.createElement(name);
    if (text !== undefined) one.textContent = text;
    if (kind) one.className = kind;
    if (within) within.append(one);
    return one;
  };

  // From a median's lower end of its interval to the upper one.
  const whiskers = {
    id: "whiskers",
    beforeDatasetDraw(chart, { index, meta }) {
      if (meta.hidden) return;
      const { ctx, scales: { y } } = chart;
      ctx.save();
      ctx.strokeStyle = chart.data.datasets[index].borderColor;
      ctx.lineWidth = 0.9;
      meta.data.forEach((element, place) => {
        const { low, high } = chart.data.datasets[index].data[place];
        if (low == null || high == null) return;
        ctx.beginPath();
        ctx.moveTo(element.x, y.getPixelForValue(low));
        ctx.lineTo(element.x, y.getPixelForValue(high));
        ctx.stroke();
      });
      ctx.restore();
    },
  };

  // So many round trips more or less: what is still called explained.
  const wedge = {
    id: "wedge",
    beforeDatasetsDraw(chart) {
      const share = chart.options.wedge;
      if (!share) return;
      const { ctx, chartArea, scales: { x, y } } = chart;
      ctx.save();
      ctx.beginPath();
      ctx.rect(chartArea.left, chartArea.top, chartArea.width, chartArea.height);
      ctx.clip();
      ctx.fillStyle = "rgba(0,0,0,0.07)";
      ctx.beginPath();
      ctx.moveTo(x.getPixelForValue(0), y.getPixelForValue(0));
      ctx.lineTo(x.getPixelForValue(x.max), y.getPixelForValue(share * x.max));
      ctx.lineTo(x.getPixelForValue(x.max), y.getPixelForValue(-share * x.max));
      ctx.fill();
      ctx.restore();
    },
  };

  const values = (series) =>
    series.data
      .filter(([, , , repetition]) => repetition == null || !off.repetition.has(repetition))
      .map(([x, y, text, repetition, point, low, high]) => ({ x, y, text, point, low, high }));

  const dataset = (series, bars) => ({
    data: values(series),
    series,
    hidden: off.region.has(series.region),
    stack: series.stack,
    borderColor: series.colour,
    backgroundColor: bars ? series.colour : series.open ? "#fff" : `${series.colour}99`,
    order: series.open ? 0 : 1, // what is open lies above what is filled, so that both are seen
    borderWidth: bars ? 0 : series.line ? 1.4 : series.joined && !series.step ? 0.8 : 1.2,
    borderDash: series.dash ? [series.dash, 3] : undefined,
    showLine: Boolean(series.line || series.joined || series.step),
    stepped: series.step ? "before" : false,
    pointStyle: series.shape,
    pointRadius: series.line || series.step ? 0 : series.small ? 2.2 : 3.4,
    pointHoverRadius: series.line || series.step ? 3 : 6,
    pointHitRadius: 8,
    pointBorderWidth: 1.2,
  });

  const axis = (of, along) => {
    const found = {
      type: of.log ? "logarithmic" : "linear",
      title: { display: true, text: of.label },
      grid: { color: along === "x" && of.names ? "transparent" : GREY },
      border: { color: "#555" },
      ticks: { maxRotation: 0, includeBounds: false },
      beginAtZero: Boolean(of.zero),
      min: of.min,
      max: of.max,
    };
    if (of.log === 2) found.ticks.callback = (value) => (Number.isInteger(Math.log2(value)) ? value : null);
    if (of.log === 10) found.ticks.callback = (v) => (/^[125]/.test(v.toExponential()) ? v : null);
    if (of.names) {
      found.afterBuildTicks = (scale) => { scale.ticks = of.names.map((_, value) => ({ value })); };
      found.ticks = { autoSkip: false, callback: (value) => of.names[value] };
    }
    return found;
  };

  function draw(figure) {
    const chart = page.charts[figure.dataset.chart];
    const box = make("div", undefined, figure, "box");
    const canvas = make("canvas", undefined, box);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", figure.querySelector("img").alt);
    const scales = { x: axis(chart.x, "x"), y: axis(chart.y, "y") };
    if (chart.bars) {
      scales.x = { ...scales.x, type: "category", stacked: true, labels: chart.x.names, ticks: {} };
      scales.y.stacked = true;
    }
    const all = chart.series.flatMap((one) => one.data);
    if (!chart.bars && !chart.x.names && !chart.x.log && chart.x.max === undefined) {
      // A marker at an end is a whole one.
      const far = Math.max(...all.map(([x]) => x));
      scales.x.min = -0.03 * far;
      scales.x.max = 1.04 * far;
    }
    const ends = all.flatMap(([, , , , , low, high]) => [low, high]).filter((value) => value != null);
    if (ends.length) {
      scales.y.suggestedMin = Math.min(...ends);
      scales.y.suggestedMax = Math.max(...ends);
    }
    if (chart.y.even) {
      const far = Math.max(1, ...all.map(([, y]) => Math.abs(y))) * 1.1;
      scales.y.min = -far;
      scales.y.max = far;
    }
    figure.classList.add("on");
    drawn.set(figure, new Chart(canvas, {
      type: chart.bars ? "bar" : "scatter",
      data: { datasets: chart.series.map((series) => dataset(series, chart.bars)) },
      plugins: [whiskers, wedge],
      options: {
        maintainAspectRatio: false,
        wedge: chart.wedge,
        scales,
        interaction: { mode: "nearest", intersect: !chart.series.some((one) => one.step), axis: "xy" },
        onClick: (event, elements, of) => {
          const { datasetIndex, index } = elements[0] || {};
          if (datasetIndex === undefined) return;
          const set = of.data.datasets[datasetIndex];
          if (set.data[index].point) lead(set.data[index].point, set.series);
        },
        onHover: (event, elements, of) => {
          const first = elements[0];
          const leads = first && of.data.datasets[first.datasetIndex].data[first.index].point;
          of.canvas.style.cursor = leads ? "pointer" : "default";
        },
        plugins: {
          legend: { display: false },
          title: { display: true, text: chart.title, align: "start", font: { weight: "bold", size: 12 } },
          tooltip: {
            displayColors: false,
            callbacks: { title: () => "", label: (item) => item.raw.text || "" },
            // Points that lie upon each other are said one after the other, but not all of a hundred.
            filter: (item, place) => place < 4,
          },
        },
      },
    }));
  }

  function table(head, rows, within) {
    const one = make("table", undefined, make("div", undefined, within, "wide"));
    const line = make("tr", undefined, make("thead", undefined, one));
    head.forEach((name) => make("th", name, line));
    const body = make("tbody", undefined, one);
    rows.forEach((row) => {
      const of = make("tr", undefined, body);
      row.forEach((cell) => make("td", cell, of));
    });
  }

  // What a point is made of: its links, and the slowest operation with its requests.
  function lead(name, series) {
    const panel = document.getElementById("lead");
    panel.replaceChildren();
    const close = make("button", "close", panel);
    close.addEventListener("click", () => { panel.hidden = true; });
    make("h3", `Point ${name}`, panel);
    const slow = ((page.leads.slowest[name] || {})[series.operation] || {})[series.region];
    if (slow) {
      make("p", `Slowest of this kind from ${series.region}: ${slow[0]}.`, panel);
      if (slow[1].length) table(page.leads.requests, slow[1], panel);
      else make("p", "Its requests are not known: there is no access log of this point here, or it fits several.", panel, "hint");
    }
    const point = page.leads.points[name];
    if (point) {
      make("p", `Its links (${point.status}${point.said.length ? `: ${point.said.join("; ")}` : ""}):`, panel);
      const own = point.links.filter(([region]) => region === series.region);
      table(page.leads.head, own.length ? own : point.links, panel);
    }
    panel.hidden = false;
    close.focus();
  }

  function switched() {
    for (const [figure, chart] of drawn) {
      chart.data.datasets.forEach((set) => {
        set.data = values(set.series);
        set.hidden = off.region.has(set.series.region);
      });
      chart.update("none");
    }
  }

  function choice(kind, value, text, colour, within) {
    const name = make("label", undefined, within);
    const box = make("input", undefined, name);
    box.type = "checkbox";
    box.checked = true;
    box.addEventListener("change", () => {
      off[kind][box.checked ? "delete" : "add"](value);
      switched();
    });
    if (colour) make("i", undefined, name).style.background = colour;
    name.append(text);
  }

  const bar = document.getElementById("hand");
  page.hand.regions.forEach(([name, colour]) => choice("region", name, name, colour, bar));
  if (page.hand.repetitions.length) {
    make("span", "repetitions", bar);
    page.hand.repetitions.forEach((number) => choice("repetition", number, String(number), null, bar));
  }
  bar.hidden = false;
  document.querySelectorAll(".hand-only").forEach((one) => { one.hidden = false; });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") document.getElementById("lead").hidden = true;
  });

  // Drawn when they come near: a run of hundreds of operations opens at once.
  const near = new IntersectionObserver((entries) => {
    entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
      near.unobserve(entry.target);
      draw(entry.target);
    });
  }, { rootMargin: "400px" });
  document.querySelectorAll("figure[data-chart]").forEach((figure) => near.observe(figure));
})();
