// Sorting, filtering and light or dark. All else is in the page, and works without this.
"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);

  // ---- light and dark: what the system prefers, until somebody chooses
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = byId("theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const nameTheme = () => (theme.textContent = isDark() ? "Light" : "Dark");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    nameTheme();
  });
  dark.addEventListener("change", nameTheme);
  nameTheme();

  // ---- sorting: numbers largest first but where less is better, names by letter; missing last
  const value = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    return cell.classList.contains("number") ? null : cell.textContent.trim().toLowerCase();
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  const sort = (head, direction) => {
    const body = head.closest("table").tBodies[0];
    const sign = direction === "ascending" ? 1 : -1;
    const keyed = [...body.rows].map((row) => [value(row, head.cellIndex), row]);
    keyed.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : sign * compare(a, b)));
    body.append(...keyed.map(([, row]) => row));
    for (const other of head.parentElement.cells) {
      if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    }
    head.setAttribute("aria-sort", direction);
  };
  for (const head of all("table.sortable th[aria-sort]")) {
    const label = head.querySelector("span");
    const button = document.createElement("button");
    button.type = "button";
    label.replaceWith(button);
    button.append(label);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const isNumber = head.classList.contains("number");
      const first = head.dataset.first ?? (isNumber ? "descending" : "ascending");
      const other = first === "ascending" ? "descending" : "ascending";
      sort(head, now === first ? other : first);
    });
  }

  // ---- whom agents are compared with
  const against = byId("against");
  if (against) {
    const head = against.closest("th");
    head.querySelector(".against").hidden = true;
    against.hidden = false;
    const choose = () => {
      for (const cell of all("td.better")) {
        delete cell.dataset.v;
        for (const span of cell.children) {
          span.hidden = span.dataset.against !== against.value;
          if (!span.hidden && span.dataset.v !== undefined) cell.dataset.v = span.dataset.v;
        }
      }
      const now = head.getAttribute("aria-sort");
      if (now !== "none") sort(head, now);
    };
    against.addEventListener("change", choose);
    choose();
  }

  // ---- which agents and tasks are shown; what is computed over all of them stays as it is
  const form = document.querySelector("form.tools");
  const task = byId("task");
  const boxes = all("input[type=checkbox]", form);
  const filter = () => {
    const off = new Set(boxes.filter((box) => !box.checked).map((box) => box.value));
    for (const part of all("[data-agent], [data-task]")) {
      const { agent, task: of } = part.dataset;
      const away = off.has(agent) || (of !== undefined && task.value !== "" && of !== task.value);
      part.toggleAttribute("hidden", away);
    }
    const shown = task.value === "" ? "all tasks" : `the task ${task.selectedOptions[0].text}`;
    byId("status").textContent =
      `Showing ${boxes.length - off.size} of ${boxes.length} agents and ${shown}.`;
  };
  for (const part of [...boxes, ...all(".choice", form)]) part.hidden = false;
  form.addEventListener("change", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  if (boxes.some((box) => !box.checked) || task.value !== "") filter(); // a page that was reloaded
})();
