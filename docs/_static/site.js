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
  for (const cell of table.querySelectorAll("td")) cell.classList.toggle("number", /^[-−]?\d/.test(cell.textContent.trim()));
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
