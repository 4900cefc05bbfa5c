// Two images side by side, in turn, or their difference; and what a person says of them.
const MODES = [["side", "Side by side", ""], ["blink", "Blink", "b"], ["difference", "Difference", "x"]];
const PERIOD = 700;
const STAGE = 384;
const shown = { mode: "side", gain: 4, align: true, place: 0, number: 0, pair: null, timer: 0, right: false, opener: null };

const dialog = byId("pair");
const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

function openPair(place, number) {
  shown.place = place;
  shown.number = Math.max(0, number);
  shown.opener = document.activeElement;
  markCurrent(place, false);
  drawPair();
  if (!dialog.open) { shown.back = false; dialog.showModal(); }
}

// The next or the previous pair of what is listed, on whatever page.
function stepPair(step) {
  const gallery = galleryOf(view.tab);
  let { place, number } = shown;
  number += step;
  while (place >= 0 && place < found.length) {
    const pairs = pairsOf(gallery, found[place]);
    if (number >= 0 && number < pairs.length) {
      shown.place = place;
      shown.number = number;
      drawPair();
      return;
    }
    place += step;
    number = step > 0 ? 0 : place >= 0 && place < found.length ? pairsOf(gallery, found[place]).length - 1 : 0;
  }
  say(step > 0 ? "This is the last pair" : "This is the first pair");
}

function drawPair() {
  const gallery = galleryOf(view.tab);
  const pairs = pairsOf(gallery, found[shown.place]);
  const pair = (shown.pair = pairs[shown.number]);
  const title = `${gallery.title}: ${count(shown.place + 1)} of ${count(found.length)}` + (pairs.length > 1 ? `, pair ${shown.number + 1} of ${pairs.length}` : "");
  const held = dialog.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  dialog.replaceChildren(el("div", { class: "sheet" },
    el("div", { class: "head" }, el("h2", { id: "pair-title", text: title }),
      el("button", { type: "button", "data-key": "close", click: closePair }, "Close ", el("kbd", { text: "Esc" }))),
    modeBar(pair), el("div", { id: "looks" }), factsOf(pair), judgeBar(pair),
    el("p", { class: "keys", text: "Keys: j, k or arrows: next and previous pair; s, d, o: verdict; b: blink; x: difference; Esc: close." })));
  drawLooks();
  const again = held && dialog.querySelector(`[data-key="${held}"]`);
  if (again) again.focus();
  else if (dialog.open) dialog.querySelector('[data-key="close"]').focus();
}

function modeBar(pair) {
  const bar = el("div", { class: "modes", role: "group", "aria-label": "How the two are shown" });
  for (const [mode, word, key] of MODES) {
    bar.append(el("button", { type: "button", "aria-pressed": String(shown.mode === mode), "data-key": mode, click: () => setMode(mode) },
      word, key ? " " : "", key ? el("kbd", { text: key }) : ""));
  }
  if (shown.mode === "difference") {
    const gain = el("input", { type: "range", min: "1", max: "16", step: "1", value: String(shown.gain), "data-key": "gain" });
    gain.addEventListener("input", () => { shown.gain = Number(gain.value); drawLooks(); });
    bar.append(el("label", null, "Amplified", gain));
  }
  if (shown.mode !== "side" && pair.motion) {
    const align = el("input", { type: "checkbox", checked: shown.align, "data-key": "align" });
    align.addEventListener("change", () => { shown.align = align.checked; drawLooks(); });
    bar.append(el("label", null, align, "Aligned"));
  }
  return bar;
}

function setMode(mode) {
  shown.mode = shown.mode === mode && mode !== "side" ? "side" : mode;
  drawPair();
}

function drawLooks() {
  clearInterval(shown.timer);
  const { pair } = shown;
  const looks = byId("looks");
  if (shown.mode === "side") {
    looks.replaceChildren(el("div", { class: "sides" }, sideOf(pair, pair.left, true), sideOf(pair, pair.right, false)));
    return;
  }
  const small = Math.max(IMAGES.side[pair.left], IMAGES.side[pair.right]) <= DATA.small;
  const [width, height] = stageOf(pair.left);
  const canvas = el("canvas", { width, height, role: "img", class: small ? "small" : undefined,
    "aria-label": shown.mode === "blink" ? "The two images in turn" : `Their difference, amplified ${shown.gain} times` });
  const badge = el("span", { class: "badge", text: "" });
  looks.replaceChildren(el("div", { class: "stage" }, canvas, badge));
  Promise.all([loaded(pair.left), loaded(pair.right)]).then(([left, right]) => {
    if (!left || !right || shown.pair !== pair) return;
    if (shown.mode === "difference") drawDifference(canvas, left, right, pair, badge);
    else blink(canvas, left, right, pair, badge);
  });
}

function sideOf(pair, image, isLeft) {
  const kept = pair.family && isLeft;
  const name = IMAGES.id[image];
  const frame = el("div", { class: "frame" }, picture(image, kept ? "The kept image" : isLeft ? "The left image" : "The right image"));
  if (kept) frame.append(el("span", { class: "badge", text: "kept" }));
  const more = [labelOf(image) === null ? NO_LABEL : visible(labelOf(image)), splitOf(image) === null ? "" : visible(splitOf(image)),
    `${IMAGES.width[image]} × ${IMAGES.height[image]} pixels`];
  return el("div", { class: kept ? "side kept" : "side" }, frame,
    el("div", { class: "words" }, el("span", { class: "id", text: visible(name) }), el("span", { text: more.filter(Boolean).join(" · ") }), el("br"),
      copyButton("Copy id", "Id", () => name)));
}

function loaded(image) {
  if (!IMAGES.picture[image]) return Promise.resolve(null);
  const img = picture(image, "");
  return img.decode().then(() => img, () => null);
}

// Of the shape of the left image.
function stageOf(image) {
  const ratio = Math.max(0.1, Math.min(10, IMAGES.width[image] / Math.max(1, IMAGES.height[image]) || 1));
  return ratio > 1 ? [STAGE, Math.round(STAGE / ratio)] : [Math.round(STAGE * ratio), STAGE];
}

// Where an image is drawn so that it lies on the left one: position x of the left shows scale * x + shift of the right.
function draw(context, img, motion) {
  const { width: across, height: down } = context.canvas;
  context.imageSmoothingEnabled = Math.max(img.naturalWidth, img.naturalHeight) > DATA.small;
  context.save();
  if (motion && shown.align) {
    const [mirrored, scaleY, scaleX, shiftY, shiftX] = motion;
    const x = ((-0.5 - shiftX) / scaleX + 0.5) * across, y = ((-0.5 - shiftY) / scaleY + 0.5) * down;
    const width = across / scaleX, height = down / scaleY;
    context.translate(x + (mirrored ? width : 0), y);
    context.scale(mirrored ? -1 : 1, 1);
    context.drawImage(img, 0, 0, width, height);
  } else {
    context.drawImage(img, 0, 0, across, down);
  }
  context.restore();
}

// Pixels outside an image that was moved are transparent: they show no difference.
function pixels(img, motion, [width, height]) {
  const canvas = el("canvas", { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  draw(context, img, motion);
  return context.getImageData(0, 0, width, height);
}

function drawDifference(canvas, left, right, pair, badge) {
  const size = [canvas.width, canvas.height];
  const a = pixels(left, null, size), b = pixels(right, pair.motion, size);
  const out = new ImageData(...size);
  let total = 0, seen = 0;
  for (let at = 0; at < a.data.length; at += 4) {
    const both = b.data[at + 3] === 255;
    for (let c = 0; c < 3; c += 1) {
      const difference = both ? Math.abs(a.data[at + c] - b.data[at + c]) : 0;
      out.data[at + c] = Math.min(255, difference * shown.gain);
      total += difference;
    }
    seen += both ? 3 : 0;
    out.data[at + 3] = 255;
  }
  canvas.getContext("2d").putImageData(out, 0, 0);
  badge.textContent = `× ${shown.gain}, mean ${(total / Math.max(1, seen)).toFixed(1)} grey levels`;
}

function blink(canvas, left, right, pair, badge) {
  const context = canvas.getContext("2d");
  const show = () => {
    context.clearRect(0, 0, canvas.width, canvas.height);
    draw(context, shown.right ? right : left, shown.right ? pair.motion : null);
    badge.textContent = shown.right ? "right" : pair.family ? "left: kept" : "left";
  };
  show();
  if (calm()) canvas.addEventListener("click", () => { shown.right = !shown.right; show(); });
  else shown.timer = setInterval(() => { shown.right = !shown.right; show(); }, PERIOD);
}

function factsOf(pair) {
  const parts = [];
  const add = (word, text) => text && parts.push(el("span", null, el("span", { text: word }), text));
  add("similarity", pair.similarity === null ? "" : score(pair.similarity));
  add("RMS", pair.rms === null ? "" : `${pair.rms} grey levels`);
  add("rule", pair.rule);
  if (pair.family) add("link", pair.similarity === null ? "linked through the cluster: not compared with the kept image" : "direct: compared with the kept image");
  add("alignment", pair.motion ? alignment(pair.motion) : "");
  const labels = [labelOf(pair.left), labelOf(pair.right)];
  if (labels[0] !== labels[1] && labels[0] !== null && labels[1] !== null) parts.push(el("span", { class: "alert", text: "different labels" }));
  add("", pair.note && pair.note !== "different labels" ? pair.note : "");
  return el("div", { class: "facts" }, ...(parts.length ? parts : [el("span", { text: "No similarity was computed for this pair." })]));
}

function alignment(motion) {
  const [mirrored, scaleY, scaleX, shiftY, shiftX, overlap] = motion;
  const share = (value) => `${value > 0 ? "+" : ""}${Math.round(100 * value)} %`;
  const words = [];
  if (mirrored) words.push("mirrored");
  if (Math.abs(scaleX - 1) > 0.01 || Math.abs(scaleY - 1) > 0.01) words.push(`scaled ${scaleX.toFixed(2)} × ${scaleY.toFixed(2)}`);
  if (Math.abs(shiftX) > 0.004 || Math.abs(shiftY) > 0.004) words.push(`shifted ${share(shiftX)}, ${share(shiftY)}`);
  if (overlap !== null && overlap < 0.995) words.push(`overlap ${Math.round(100 * overlap)} %`);
  return words.join(", ") || "none needed";
}

// The browser tells of a closed dialog a moment later, when keys may already have moved on: so back at once.
function closePair() {
  dialog.close();
  backToGallery();
}

function backToGallery() {
  if (shown.back) return;
  shown.back = true;
  clearInterval(shown.timer);
  const gallery = galleryOf(view.tab);
  const page = Math.floor(shown.place / PER_PAGE[gallery.kind]);
  view.page[gallery.name] = page;
  drawPage(gallery, byId("panel").lastElementChild);
  markCurrent(shown.place, true);
}

dialog.addEventListener("close", backToGallery); // where the browser closes it by itself
dialog.addEventListener("click", (event) => { if (event.target === dialog) closePair(); });
