// One entry as an element.
function tile(image, options) {
  const label = labelOf(image);
  const name = visible(IMAGES.id[image]);
  const frame = el("span", { class: "frame" }, picture(image, ""));
  if (options.kept) frame.append(el("span", { class: "badge", text: "kept" }));
  if (options.verdict) frame.append(el("span", { class: "badge verdict", "data-verdict": options.verdict, text: options.verdict }));
  const parts = [frame, el("span", { class: "id", text: brief(name, options.room) })];
  const words = [options.label ? label : null, options.split ? splitOf(image) : null].filter((word) => word !== null);
  if (words.length) parts.push(el("span", { class: "chip", text: words.map(visible).join(" · ") }));
  if (options.value) parts.push(el("span", { class: "value", text: options.value }));
  const kind = "tile" + (options.kept ? " kept" : "");
  if (!options.open) return el("div", { class: kind }, ...parts);
  return el("button", { type: "button", class: kind, click: options.open, title: name }, ...parts);
}

const closeness = (similarity, rms) =>
  similarity !== null && similarity !== undefined ? score(similarity) : rms !== null && rms !== undefined ? `RMS ${rms}` : "";

function card(gallery, entry, place) {
  const pairs = pairsOf(gallery, entry);
  const open = (at) => () => openPair(place, pairs.findIndex((pair) => pair.at === at));
  const splits = DATA.splits.length > 1;
  const tiles = entry.m.map((image, at) => {
    const pair = pairs.find((one) => one.at === at);
    return tile(image, {
      room: gallery.kind === "pair" ? 17 : 13,
      kept: gallery.kind === "family" && at === 0,
      label: gallery.kind !== "family" || at === 0,
      split: splits,
      value: gallery.kind === "pair" ? "" : closeness(entry.s[at], entry.d ? entry.d[at] : null),
      verdict: pair && verdictWord(pair),
      open: openable(pairs, at, open),
    });
  });
  return el("li", { class: `entry ${gallery.kind} of${Math.min(6, entry.m.length)}`, "data-place": place },
    el("div", { class: "head" }, ...headOf(gallery, entry)),
    el("div", { class: "tiles" }, ...tiles),
    footOf(gallery, entry));
}

// The kept image opens the first pair; an image without a partner opens nothing.
function openable(pairs, at, open) {
  if (!pairs.length) return undefined;
  if (pairs.some((pair) => pair.at === at)) return open(at);
  return open(pairs[0].at);
}

function headOf(gallery, entry) {
  if (gallery.kind === "family") {
    const low = lowestOf(entry);
    return [el("b", { text: `1 kept, ${count(entry.n - 1)} may go` }),
      el("span", { class: "muted", text: low < Infinity && entry.m.length > 2 ? `least similar ${score(low)}` : "" })];
  }
  if (gallery.kind === "group") {
    return [el("b", { text: plural(entry.n, "image") }), el("span", { class: "alert", text: noteOf(entry.x) })];
  }
  const value = closeness(entry.s[1], entry.d ? entry.d[1] : null);
  const note = noteOf(entry.x);
  const conflict = note === "different labels";
  return [value && el("b", { text: value }),
    gallery.name !== "anomalies" && note && el("span", { class: conflict ? "alert" : "muted", text: note })];
}

function footOf(gallery, entry) {
  const words = [];
  if (entry.m.length < entry.n) {
    words.push(`${count(entry.m.length)} of ${count(entry.n)} are shown${gallery.kind === "family" ? ": the least similar" : entry.s.some((value) => value !== null) ? ": the most alike of different labels" : ""}.`);
  }
  if (gallery.kind === "family" && entry.r) {
    const exact = entry.r.filter((rule) => noteOf(rule) === "exact").length;
    if (exact) words.push(`${plural(exact, "exact copy", "exact copies")}.`);
  }
  if (gallery.name === "anomalies") words.push(noteOf(entry.x));
  return words.length ? el("p", { class: "foot", text: words.join(" ") }) : null;
}
