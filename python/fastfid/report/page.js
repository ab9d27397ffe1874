
"use strict";
// Makes the heads of sortable tables buttons. Without this script the tables read as they are.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending";
      for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.number ?? row.cells[column].textContent;
      const isNumber = (text) => text !== "" && !Number.isNaN(Number(text));
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (isNumber(x) && isNumber(y)) return Number(x) - Number(y);
        if (isNumber(x) !== isNumber(y)) return isNumber(x) ? 1 : -1;
        return x.localeCompare(y);
      };
      const rows = [...body.rows].sort((a, b) => (up ? compare(a, b) : compare(b, a)));
      body.append(...rows);
    });
  });
}
