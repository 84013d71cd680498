"use strict";
(() => {
  const root = document.documentElement;
  const toggle = document.getElementById("theme");
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => { toggle.textContent = dark() ? "Light" : "Dark"; };
  toggle.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
  name();

  document.querySelectorAll(".tabs").forEach((tabs) => {
    const group = tabs.dataset.group;
    tabs.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      tabs.querySelectorAll("button").forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
      document.querySelectorAll(`[data-${group}]`).forEach((e) => { e.hidden = button.value !== "all" && e.dataset[group] !== button.value; });
    });
  });

  document.querySelectorAll("th[data-sort]").forEach((head) => {
    head.addEventListener("click", () => {
      const table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
      const falling = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("th").forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const value = (row) => { const cell = row.cells[column], raw = cell.dataset.v ?? cell.textContent; return raw === "" ? NaN : Number.isNaN(Number(raw)) ? raw : Number(raw); };
      const order = (a, b) => typeof a === "string" || typeof b === "string" ? String(a).localeCompare(String(b)) : Number.isNaN(a) ? 1 : Number.isNaN(b) ? -1 : a - b;
      const fixed = [...body.rows].filter((r) => r.classList.contains("mean"));
      [...body.rows].filter((r) => !r.classList.contains("mean")).sort((a, b) => {
        const x = value(a), y = value(b), last = (v) => typeof v === "number" && Number.isNaN(v);
        return last(x) || last(y) ? order(x, y) : falling ? order(y, x) : order(x, y);
      }).concat(fixed).forEach((r) => body.append(r));
    });
  });

  const dialog = document.querySelector("dialog");
  document.querySelectorAll("figure img").forEach((image) => image.addEventListener("click", () => {
    dialog.querySelector("img").src = image.src;
    dialog.querySelector("img").alt = image.alt;
    dialog.showModal();
  }));
  dialog.addEventListener("click", () => dialog.close());
})();
