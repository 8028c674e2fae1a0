"use strict";
// Heads of tables become buttons that sort; without script the tables are as they were written.
const UNITS = { k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15 };
const number = (text) => {
  const found = text.replace(/[,≥\s]/g, "").replace("−", "-").match(/^([+-]?[\d.]+(?:e[+-]?\d+)?)([kMGTP](?![a-z]))?/);
  return found ? parseFloat(found[1]) * (UNITS[found[2]] || 1) : NaN;
};
const order = (one, other) => {
  const [a, b] = [number(one), number(other)];
  if (isNaN(a) && isNaN(b)) return one.localeCompare(other);
  return isNaN(a) ? 1 : isNaN(b) ? -1 : a - b;
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.ariaSort === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const text = (row) => row.cells[place].textContent.trim();
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort((a, b) => sign * order(text(a), text(b))));
    });
  });
}
