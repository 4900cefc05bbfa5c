// What a person says of pairs: kept in this browser where it may be, and saved as a file.
const KEY = "daskim-verdicts:" + DATA.key;
const WORDS = { same: "same", different: "different", "keep-a": "keep left", "keep-b": "keep right" };
const verdicts = new Map();
let stored = true;

// A pair may be shown in several galleries, either way round: it has one verdict, kept by the order of the ids.
const turnedRound = (pair) => IMAGES.id[pair.left] > IMAGES.id[pair.right];
const FLIPPED = { "keep-a": "keep-b", "keep-b": "keep-a" };
const facing = (pair, verdict) => (turnedRound(pair) ? FLIPPED[verdict] || verdict : verdict);

function keyOf(pair) {
  const ids = [IMAGES.id[pair.left], IMAGES.id[pair.right]];
  return JSON.stringify(turnedRound(pair) ? ids.reverse() : ids);
}

// As seen from the left image of the pair; undefined where there is none.
const verdictOf = (pair) => facing(pair, verdicts.get(keyOf(pair)));

function verdictWord(pair) {
  const verdict = verdictOf(pair);
  return verdict === undefined ? "" : pair.family && verdict === "keep-b" ? "keep this" : WORDS[verdict];
}

function readVerdicts() {
  try {
    const text = localStorage.getItem(KEY);
    for (const [key, verdict] of text ? JSON.parse(text) : []) {
      if (verdict in WORDS && Array.isArray(JSON.parse(key))) verdicts.set(key, verdict);
    }
    localStorage.setItem(KEY + ":try", "1");
    localStorage.removeItem(KEY + ":try");
  } catch {
    stored = false;
  }
}

function keepVerdicts() {
  try {
    localStorage.setItem(KEY, JSON.stringify([...verdicts]));
  } catch {
    stored = false;
  }
  drawVerdicts();
}

// The same verdict again takes it back.
function judge(pair, verdict) {
  const key = keyOf(pair);
  if (verdictOf(pair) === verdict) {
    verdicts.delete(key);
    say("Verdict taken back");
  } else {
    verdicts.set(key, facing(pair, verdict));
    say(`Verdict: ${WORDS[verdict]}`);
  }
  keepVerdicts();
  drawPair();
}

const choicesOf = (pair) => [
  ["same", "Same", "s"], ["different", "Different", "d"],
  ...(pair.family ? [["keep-b", "Keep the other", "o"]] : [["keep-a", "Keep left", "l"], ["keep-b", "Keep right", "o"]]),
];

function judgeBar(pair) {
  const given = verdictOf(pair);
  return el("div", { class: "judge", role: "group", "aria-label": "Verdict" },
    ...choicesOf(pair).map(([verdict, word, key]) => el("button", {
      type: "button", "data-key": verdict, "aria-pressed": String(given === verdict), click: () => judge(pair, verdict),
    }, word, " ", el("kbd", { text: key }))),
    el("span", { class: "step" },
      el("button", { type: "button", "data-key": "previous", click: () => stepPair(-1) }, "Previous ", el("kbd", { text: "k" })),
      el("button", { type: "button", "data-key": "next", click: () => stepPair(1) }, "Next ", el("kbd", { text: "j" }))));
}

const quoted = (text) => '"' + text.replaceAll('"', '""') + '"';

function reviewed() {
  const lines = [...verdicts].map(([key, verdict]) => [...JSON.parse(key), verdict].map(quoted).join(","));
  return ["a,b,verdict", ...lines].join("\r\n") + "\r\n";
}

function saveVerdicts() {
  const url = URL.createObjectURL(new Blob([reviewed()], { type: "text/csv;charset=utf-8" }));
  const link = el("a", { href: url, download: "reviewed.csv" });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function drawVerdicts() {
  const bar = byId("verdicts");
  bar.hidden = !verdicts.size;
  const where = stored ? "They stay in this browser." : "This browser keeps nothing for this page: save before you close it.";
  bar.replaceChildren(el("div", null,
    el("p", null, `${plural(verdicts.size, "verdict")}. `, el("span", { class: "muted", text: `${where} Later runs honour the file: --reviewed reviewed.csv.` })),
    el("button", { type: "button", class: "primary", id: "save", text: "Save reviewed.csv", click: saveVerdicts }),
    el("button", { type: "button", id: "forget", text: "Forget all", click: () => {
      if (confirm(`Forget ${plural(verdicts.size, "verdict")}?`)) { verdicts.clear(); keepVerdicts(); showTab(view.tab); }
    } })));
}
