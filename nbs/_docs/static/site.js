/* Interactive figures: plotly.js lies beside the page and is read only where a figure needs it. */
(() => {
  const figures = () => [...document.querySelectorAll("script[data-figure]")];
  const dark = () => document.documentElement.dataset.theme === "dark";
  const colours = () => (dark() ? { text: "#e6e6e6", grid: "#4a4f58" } : { text: "#222832", grid: "#d9dde3" });

  const themed = (layout) => {
    const c = colours();
    const changed = { ...layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { ...(layout.font || {}), color: c.text }, autosize: true };
    delete changed.width;
    const names = new Set([...Object.keys(layout).filter((k) => /^[xy]axis\d*$/.test(k)), "xaxis", "yaxis"]);
    names.forEach((k) => { changed[k] = { ...(layout[k] || {}), gridcolor: c.grid, zerolinecolor: c.grid, automargin: true }; });
    return changed;
  };

  const draw = () => figures().forEach((script) => {
    const { data, layout } = JSON.parse(script.textContent);
    Plotly.react(script.dataset.figure, data, themed(layout), { responsive: true, displaylogo: false });
  });

  document.addEventListener("DOMContentLoaded", () => {
    if (!figures().length) return;
    const plotly = document.createElement("script");
    plotly.src = `${document.documentElement.dataset.content_root || "./"}_static/plotly.min.js`;
    plotly.onload = () => {
      draw();
      new MutationObserver(draw).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    };
    document.head.append(plotly);
  });
})();

/* What scrolls by itself can be reached by keyboard, and says what it is. */
(() => {
  const mark = () => document.querySelectorAll(".scrolls, .aml-table, .formula-block, .cell_output pre, .pst-scrollable-table-container, div.highlight pre").forEach((box) => {
    const scrolls = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
    if (scrolls && !box.hasAttribute("tabindex")) Object.assign(box, { tabIndex: 0, role: "group", ariaLabel: "scrolls" });
  });
  window.addEventListener("load", mark);
  window.addEventListener("resize", mark);
})();

/* On a phone the rows of a written table stand as blocks: each cell says which column it is of. */
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".pst-scrollable-table-container > table").forEach((table) => {
    const heads = [...table.querySelectorAll("thead th")].map((head) => head.textContent.trim());
    table.querySelectorAll("tbody tr").forEach((row) => [...row.cells].forEach((cell, i) => {
      if (cell.textContent.trim()) cell.dataset.label = heads[i] || ""; else cell.classList.add("nothing");
    }));
  });
});
