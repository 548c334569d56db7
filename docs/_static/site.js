// Tables of class "sortable": a click on a column's head sorts by it, numbers by value ("39.5 ± 1.7" by 39.5), text by letter.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, i) => {
    const text = row.cells[i].textContent.trim();
    const number = parseFloat(text);
    return text === "" ? null : Number.isNaN(number) ? text : number;
  };
  for (const row of body.rows) [...row.cells].forEach((cell, i) => { cell.dataset.name = heads[i].textContent.trim(); });  // for a phone
  for (const cell of table.querySelectorAll("td")) {
    cell.classList.toggle("number", /^[-−+]?\d/.test(cell.textContent.trim()));
    cell.classList.toggle("interval", cell.textContent.includes("("));
  }
  heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...(head.querySelector("p") ?? head).childNodes);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const order = head.ariaSort === "descending" ? 1 : head.ariaSort === "ascending" ? -1 : typeof key(body.rows[0], i) === "number" ? -1 : 1;
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a, i), key(b, i)];
        if (x === null || y === null) return (x === null) - (y === null); // empty cells stay last
        return order * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true }));
      });
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order === 1 ? "ascending" : "descending");
      body.append(...rows);
    });
  });
}

// A notebook's table: every cell knows its column's name, and a label that spans rows stands in each of them, for a phone.
for (const table of document.querySelectorAll(".cell_output table.dataframe")) {
  const names = [], labels = table.tBodies[0].rows[0]?.querySelectorAll("th").length ?? 0;
  for (const row of table.tHead?.rows ?? []) {
    let column = 0;
    for (const cell of row.cells) {
      const text = cell.textContent.trim();
      for (let i = 0; i < cell.colSpan; i++, column++) {
        const above = names[column] ?? "";  // over a label stands the name of the columns' level
        names[column] = column < labels && text ? text : `${above} ${text}`.trim();
      }
    }
  }
  const spanning = []; // by column: the label, and how many rows below it has
  for (const row of table.tBodies[0].rows) {
    for (let i = 0; i < names.length; i++) {
      if (spanning[i]?.rows) {
        const copy = spanning[i].cell.cloneNode(true);
        copy.rowSpan = 1;
        copy.className = "repeated";
        row.insertBefore(copy, row.cells[i] ?? null);
        spanning[i].rows--;
      } else if (row.cells[i]?.rowSpan > 1) spanning[i] = { cell: row.cells[i], rows: row.cells[i].rowSpan - 1 };
      if (row.cells[i]) row.cells[i].dataset.name = names[i];
    }
  }
}
