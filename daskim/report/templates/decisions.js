// The two lists of text: broken files, and what became of every image.
const ROWS = 50;
let listed = null;

function table(title, heads, rows) {
  return el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": title },
    el("table", null,
      el("thead", null, el("tr", null, ...heads.map(([text, kind]) => el("th", { scope: "col", class: kind, text })))),
      el("tbody", null, ...rows.map((row) => el("tr", null, ...row.map((text, at) => el("td", { class: heads[at][1], text })))))));
}

function paged(name, total, told, draw) {
  const pages = Math.max(1, Math.ceil(total / ROWS));
  const page = Math.min(view.page[name] || 0, pages - 1);
  return [told, draw(page * ROWS, Math.min(total, (page + 1) * ROWS)),
    pager(page, pages, (to) => { view.page[name] = to; showTab(name); })];
}

function drawBroken() {
  const rows = DATA.broken.rows;
  const kinds = {};
  for (const row of rows) kinds[row.status] = (kinds[row.status] || 0) + 1;
  const told = Object.entries(kinds).map(([kind, number]) => `${count(number)} ${kind}`).join(", ");
  const some = rows.length < DATA.broken.total ? `Shown are the first ${count(rows.length)} of ${count(DATA.broken.total)}. ` : "";
  byId("panel").replaceChildren(
    el("p", { class: "about", text: "Files that cannot be read as images. They are in no plan: mend or remove them." }),
    ...paged("broken", rows.length,
      el("div", { class: "found" }, el("span", { text: some + told }), copyButton("Copy ids", "Ids", () => rows.map((row) => row.id).join("\n"))),
      (from, to) => table("Broken files", [["id", "id"], ["status"], ["reason", "id"]],
        rows.slice(from, to).map((row) => [visible(row.id), row.status, visible(row.reason || "")]))));
}

async function unpack() {
  const bytes = Uint8Array.from(atob(byId("listed").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  listed = JSON.parse(await new Response(stream).text());
  listed.search = listed.ids.map((id) => id.toLowerCase());
}

function drawDecisions() {
  if (listed) {
    drawListed();
  } else if (typeof DecompressionStream === "undefined") {
    byId("panel").replaceChildren(el("p", { text: "This browser cannot unpack the list (no DecompressionStream): see tables/plan of the run." }));
  } else {
    byId("panel").replaceChildren(el("p", { text: "Unpacking…" }));
    unpack().then(() => view.tab === "decisions" && drawListed());
  }
}

function drawListed() {
  const asked = (view.filters.decisions = view.filters.decisions || {});
  const body = el("div", null);
  const change = (key) => (value) => { asked[key] = value; view.page.decisions = 0; drawRows(body, asked); };
  const known = (name) => [...new Set(listed.columns[name])].filter((value) => value >= 0).map((value) => listed.texts[value]).sort(order);
  const choices = (name) => [["", "all"], ...known(name).map((text) => [text, visible(text)])];
  const labels = known("label");
  const some = DATA.listed.count < DATA.listed.total
    ? `Listed are ${count(DATA.listed.count)} of ${count(DATA.listed.total)} images: the first of those that are not alone in their cluster. All are in tables/plan.` : "";
  byId("panel").replaceChildren(
    el("p", { class: "about", text: "What the plan says of each image, by which rule, and which image stands for it." }),
    some ? el("p", { class: "note", text: some }) : "",
    el("div", { class: "filters", role: "group", "aria-label": "Filters" },
      field("Id contains", "search", asked.text, change("text")),
      labels.length > MANY ? field("Label contains", "search", asked.label, change("label"))
        : labels.length ? menu("Label", asked.label || "", choices("label"), change("label")) : null,
      known("split").length > 1 && menu("Split", asked.split || "", choices("split"), change("split")),
      menu("Decision", asked.decision || "", choices("decision"), change("decision")),
      menu("Rule", asked.rule || "", choices("rule"), change("rule"))),
    body);
  drawRows(body, asked);
}

function rowsOf(asked) {
  const { columns, texts, search } = listed;
  const words = (asked.text || "").toLowerCase();
  const exact = ["split", "decision", "rule"].filter((name) => asked[name]).map((name) => [columns[name], texts.indexOf(asked[name])]);
  let labels = null;
  if (asked.label) {
    const part = texts.length && new Set(columns.label).size > MANY;
    labels = new Set(texts.flatMap((text, at) => ((part ? text.toLowerCase().includes(asked.label.toLowerCase()) : text === asked.label) ? [at] : [])));
  }
  const rows = [];
  for (let at = 0; at < listed.count; at += 1) {
    if (words && !search[at].includes(words)) continue;
    if (labels && !labels.has(columns.label[at])) continue;
    if (exact.some(([column, value]) => column[at] !== value)) continue;
    rows.push(at);
  }
  return rows;
}

function drawRows(body, asked) {
  const began = performance.now();
  const rows = rowsOf(asked);
  const { columns, texts, ids } = listed;
  const text = (name, at) => (columns[name][at] < 0 ? "" : visible(texts[columns[name][at]]));
  const named = ["label", "split"].filter((name) => columns[name].some((value) => value >= 0));
  const heads = [["id", "id"], ...named.map((name) => [name, "id"]), ["decision"], ["rule"], ["kept instead", "id"], ["similarity", "number"]];
  const told = `${plural(rows.length, "image")}`;
  const pages = Math.max(1, Math.ceil(rows.length / ROWS));
  const page = Math.min(view.page.decisions || 0, pages - 1);
  body.replaceChildren(
    el("div", { class: "found" }, el("span", { text: told }), copyButton("Copy ids", "Ids", () => rows.map((at) => ids[at]).join("\n"))),
    table("Decisions", heads, rows.slice(page * ROWS, (page + 1) * ROWS).map((at) => [
      visible(ids[at]), ...named.map((name) => text(name, at)), text("decision", at), text("rule", at),
      columns.kept[at] < 0 ? "" : visible(ids[columns.kept[at]]), score(columns.similarity[at])])),
    pager(page, pages, (to) => { view.page.decisions = to; drawRows(body, asked); }));
  body.dataset.milliseconds = (performance.now() - began).toFixed(1);
  say(told);
}
