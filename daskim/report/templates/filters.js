// Filters and orders of the galleries.
const ORDERS = {
  chosen: ["As chosen", null],
  largest: ["Largest first", (a, b) => b.n - a.n],
  least: ["Least similar first", (a, b) => order(lowestOf(a), lowestOf(b))],
  most: ["Most similar first", (a, b) => order(highestOf(b), highestOf(a))],
  id: ["By id", (a, b) => order(IMAGES.id[a.m[0]], IMAGES.id[b.m[0]])],
};
const FIRST = { families: "largest", influential: "largest", leaks: "most" };
const MANY = 60;

function order(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

function matching(gallery) {
  const asked = view.filters[gallery.name] || {};
  const words = (asked.text || "").toLowerCase();
  const low = asked.low === undefined || asked.low === "" ? -Infinity : Number(asked.low);
  const high = asked.high === undefined || asked.high === "" ? Infinity : Number(asked.high);
  const bounded = low > -Infinity || high < Infinity;
  const fits = (entry) =>
    (!asked.label || entry.m.some((image) => labelFits(labelOf(image), asked.label))) &&
    (!asked.split || entry.m.some((image) => (splitOf(image) || "") === asked.split)) &&
    (!bounded || entry.s.some((value) => value !== null && value >= low && value <= high)) &&
    (!asked.note || noteOf(entry.x) === asked.note) &&
    (!words || entry.m.some((image) => IMAGES.id[image].toLowerCase().includes(words)));
  const found = gallery.entries.filter(fits);
  const by = ORDERS[view.sort[gallery.name] || FIRST[gallery.name] || "chosen"][1];
  return by ? found.sort(by) : found;
}

// A menu gives a whole label, a text field a part of one.
function labelFits(label, asked) {
  if (DATA.labels.length <= MANY) return (label === null ? NO_LABEL : label) === asked;
  return label !== null && label.toLowerCase().includes(asked.toLowerCase());
}

function menu(word, value, choices, change) {
  const select = el("select", { change: () => change(select.value) });
  for (const [key, text] of choices) select.append(el("option", { value: key, text, selected: key === value }));
  return el("label", null, word, select);
}

function field(word, type, value, change, more) {
  let waiting;
  const input = el("input", { type, value: value || "", autocomplete: "off", spellcheck: "false", ...more });
  input.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => change(input.value), 80);
  });
  return el("label", { class: type === "number" ? "range" : undefined }, word, input);
}

function labelFilter(value, change) {
  if (!DATA.labels.length) return null;
  if (DATA.labels.length > MANY) return field("Label contains", "search", value, change);
  const known = DATA.labels.slice().sort(order).map((label) => [label, visible(label)]);
  return menu("Label", value || "", [["", "all"], ...known], change);
}

function filterBar(gallery, refresh) {
  const asked = (view.filters[gallery.name] = view.filters[gallery.name] || {});
  const change = (key) => (value) => {
    asked[key] = value;
    view.page[gallery.name] = 0;
    refresh();
  };
  const similar = gallery.entries.some((entry) => lowestOf(entry) < Infinity);
  const notes = [...new Set(gallery.entries.map((entry) => noteOf(entry.x)))].filter(Boolean);
  const step = { step: "0.05", inputmode: "decimal" };
  const orders = Object.entries(ORDERS).filter(
    ([key]) => (key !== "largest" || gallery.kind !== "pair") && (similar || (key !== "least" && key !== "most")),
  );
  return el("div", { class: "filters", role: "group", "aria-label": "Filters" },
    field("Id contains", "search", asked.text, change("text")),
    labelFilter(asked.label, change("label")),
    DATA.splits.length > 1 && menu("Split", asked.split || "", [["", "all"], ...DATA.splits.map((s) => [s, visible(s)])], change("split")),
    similar && field("Similarity from", "number", asked.low, change("low"), step),
    similar && field("to", "number", asked.high, change("high"), { ...step, "aria-label": "Similarity to" }),
    notes.length > 1 && notes.length <= 6 && menu("Kind", asked.note || "", [["", "all"], ...notes.map((n) => [n, n])], change("note")),
    menu("Order", view.sort[gallery.name] || FIRST[gallery.name] || "chosen", orders.map(([key, [text]]) => [key, text]), (value) => {
      view.sort[gallery.name] = value;
      view.page[gallery.name] = 0;
      refresh();
    }));
}
