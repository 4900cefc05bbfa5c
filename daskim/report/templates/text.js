// Texts and elements. Whatever comes from the data set is set as text, never as markup.
const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu;

const visible = (text) =>
  String(text).replace(HIDDEN, (c) => {
    const code = c.codePointAt(0).toString(16);
    return code.length > 4 ? "\\U" + code.padStart(8, "0") : "\\u" + code.padStart(4, "0");
  });

const byId = (id) => document.getElementById(id);
const count = (value) => value.toLocaleString("en-US");
const plural = (value, one, several) => `${count(value)} ${value === 1 ? one : several || one + "s"}`;
// Three digits, rounded down: what is below a threshold never looks as if it reached it.
const score = (value) => (value === null || value === undefined ? "" : (Math.floor(value * 1000 + 1e-6) / 1000).toFixed(3));

// A name in little room: its last part, and of that the end.
function brief(name, most) {
  if (name.length <= most) return name;
  const last = name.slice(name.lastIndexOf("/") + 1);
  return last.length <= most ? last : "…" + last.slice(1 - most);
}

function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") made.textContent = value;
    else if (typeof value === "function") made.addEventListener(name, value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

function say(text) {
  byId("said").textContent = "";
  requestAnimationFrame(() => { byId("said").textContent = text; });
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = el("textarea", { class: "unseen", "aria-hidden": "true" });
    area.value = text;
    (document.querySelector("dialog[open]") || document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say(`${what} copied`);
}

// The word on a button changes for a moment, so that one sees that it did something.
function copyButton(word, what, text) {
  const button = el("button", { type: "button", text: word });
  button.addEventListener("click", async () => {
    await copy(text(), what);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = word; }, 1200);
  });
  return button;
}
