// The data of the page, and what is being looked at.
const DATA = JSON.parse(byId("data").textContent);
const IMAGES = DATA.images;
const NO_LABEL = "(no label)";
const view = { tab: "", filters: {}, sort: {}, page: {}, current: -1 };

const galleryOf = (name) => DATA.galleries.find((gallery) => gallery.name === name);
const labelOf = (image) => (IMAGES.label[image] < 0 ? null : DATA.labels[IMAGES.label[image]]);
const splitOf = (image) => (IMAGES.split[image] < 0 ? null : DATA.splits[IMAGES.split[image]]);
const noteOf = (number) => (number === undefined || number < 0 ? "" : DATA.notes[number]);

function picture(image, alt) {
  if (!IMAGES.picture[image]) return el("span", { text: "no picture" });
  return el("img", {
    src: "data:image/webp;base64," + IMAGES.picture[image],
    alt,
    class: IMAGES.side[image] <= DATA.small ? "small" : undefined,
    decoding: "async",
  });
}

// The pairs of an entry: right is compared with left; in a family left is the kept image.
function pairsOf(gallery, entry) {
  const pairs = [];
  const seen = new Set();
  entry.m.forEach((image, at) => {
    const partner = entry.p[at];
    if (partner < 0) return;
    const key = Math.min(at, partner) * 4096 + Math.max(at, partner);
    if (seen.has(key)) return;
    seen.add(key);
    pairs.push({
      left: entry.m[partner], right: image, at,
      similarity: entry.s[at], rms: entry.d ? entry.d[at] : null,
      rule: entry.r ? noteOf(entry.r[at]) : "", motion: entry.t && entry.t[at] ? entry.t[at] : null,
      note: noteOf(entry.x), family: gallery.kind === "family", gallery, entry,
    });
  });
  return pairs;
}

const lowestOf = (entry) => entry.s.reduce((low, value) => (value === null ? low : Math.min(low, value)), Infinity);
const highestOf = (entry) => entry.s.reduce((high, value) => (value === null ? high : Math.max(high, value)), -Infinity);
