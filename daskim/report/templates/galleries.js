// Tabs, pages, and the way through them by keyboard.
const PER_PAGE = { family: 8, group: 8, pair: 24 };
let found = [];

function tabs() {
  const list = DATA.galleries.map((gallery) => ({ name: gallery.name, title: gallery.title, total: gallery.total, draw: () => drawGallery(gallery) }));
  if (DATA.broken.total) list.push({ name: "broken", title: "Broken", total: DATA.broken.total, draw: drawBroken });
  if (DATA.listed.count) list.push({ name: "decisions", title: "Every decision", total: DATA.listed.total, draw: drawDecisions });
  return list;
}

function showTabs() {
  const list = tabs();
  const bar = byId("tabs");
  if (DATA.nothing.length) {
    byId("nothing").textContent = `Nothing to show: ${DATA.nothing.join("; ")}.`;
    byId("nothing").hidden = false;
  }
  if (!list.length) return;
  for (const tab of list) {
    bar.append(el("button", {
      type: "button", role: "tab", id: `tab-${tab.name}`, "aria-controls": "panel", "aria-selected": "false", tabindex: "-1",
      click: () => showTab(tab.name),
    }, tab.title, el("span", { text: count(tab.total) })));
  }
  bar.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const at = list.findIndex((tab) => tab.name === view.tab);
    const to = event.key === "Home" ? 0 : event.key === "End" ? list.length - 1 : step ? (at + step + list.length) % list.length : -1;
    if (to < 0) return;
    event.preventDefault();
    showTab(list[to].name);
    byId(`tab-${list[to].name}`).focus();
  });
  bar.hidden = byId("panel").hidden = false;
  showTab(list[0].name);
}

function showTab(name) {
  const tab = tabs().find((one) => one.name === name);
  if (!tab) return;
  view.tab = name;
  for (const button of byId("tabs").children) {
    const chosen = button.id === `tab-${name}`;
    button.setAttribute("aria-selected", String(chosen));
    button.tabIndex = chosen ? 0 : -1;
  }
  byId("panel").setAttribute("aria-labelledby", `tab-${name}`);
  tab.draw();
}

function drawGallery(gallery) {
  const panel = byId("panel");
  const body = el("div", null);
  const refresh = () => drawPage(gallery, body);
  const shown = gallery.entries.length;
  const chosen = shown < gallery.total
    ? `Shown are ${count(shown)} of ${count(gallery.total)} ${gallery.unit[1]}${gallery.chosen ? ": " + gallery.chosen : ""}. All are in the tables of the run.`
    : "";
  panel.replaceChildren(
    el("p", { class: "about", text: gallery.about }),
    chosen ? el("p", { class: "note", text: chosen }) : "",
    filterBar(gallery, refresh), body);
  refresh();
}

function drawPage(gallery, body) {
  found = matching(gallery);
  const size = PER_PAGE[gallery.kind];
  const pages = Math.max(1, Math.ceil(found.length / size));
  const page = Math.min(view.page[gallery.name] || 0, pages - 1);
  view.page[gallery.name] = page;
  view.current = -1;
  const list = el("ul", { class: "entries" });
  found.slice(page * size, (page + 1) * size).forEach((entry, at) => list.append(card(gallery, entry, page * size + at)));
  const all = found.length === gallery.entries.length;
  const told = `${all ? "" : `${count(found.length)} of `}${plural(gallery.entries.length, ...gallery.unit)}`;
  const ids = () => [...new Set(found.flatMap((entry) => entry.m))].map((image) => IMAGES.id[image]).join("\n");
  body.replaceChildren(
    el("div", { class: "found" },
      el("span", { text: told }),
      el("span", { class: "hint" }, el("kbd", { text: "j" }), " ", el("kbd", { text: "k" }), " move, ", el("kbd", { text: "Enter" }), " compare"),
      copyButton("Copy ids", "Ids", ids)),
    list, pager(page, pages, (to) => { view.page[gallery.name] = to; drawPage(gallery, body); }));
  say(told);
}

function pager(page, pages, go) {
  if (pages < 2) return "";
  const turn = (to) => {
    go(to);
    byId("tabs").scrollIntoView({ block: "start" });
    const again = document.querySelector(`.pager [data-turn="${to > page ? "next" : "back"}"]:not(:disabled)`) || document.querySelector(".pager button:not(:disabled)");
    if (again) again.focus({ preventScroll: true });
  };
  return el("nav", { class: "pager", "aria-label": "Pages" },
    el("button", { type: "button", text: "Back", "data-turn": "back", disabled: page === 0, click: () => turn(page - 1) }),
    el("span", { text: `Page ${count(page + 1)} of ${count(pages)}` }),
    el("button", { type: "button", text: "Next", "data-turn": "next", disabled: page === pages - 1, click: () => turn(page + 1) }));
}

// j and k go from entry to entry, from one page to the next too.
function moveBy(step) {
  const gallery = galleryOf(view.tab);
  if (!gallery || !found.length) return;
  const size = PER_PAGE[gallery.kind];
  const first = (view.page[gallery.name] || 0) * size;
  const to = Math.max(0, Math.min(found.length - 1, view.current < 0 ? first : view.current + step));
  const page = Math.floor(to / size);
  if (page !== view.page[gallery.name]) {
    view.page[gallery.name] = page;
    drawPage(gallery, byId("panel").lastElementChild);
  }
  markCurrent(to, true);
}

function markCurrent(place, focus) {
  view.current = place;
  for (const entry of document.querySelectorAll(".entry")) {
    const here = Number(entry.dataset.place) === place;
    entry.classList.toggle("current", here);
    const button = here && entry.querySelector("button");
    if (button && focus) {
      button.focus({ preventScroll: true });
      entry.scrollIntoView({ block: "nearest" });
    }
  }
}
