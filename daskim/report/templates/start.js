// What happens when the page is opened, and the keys.
const KEYS = {
  j: () => stepPair(1), ArrowRight: () => stepPair(1), ArrowDown: () => stepPair(1),
  k: () => stepPair(-1), ArrowLeft: () => stepPair(-1), ArrowUp: () => stepPair(-1),
  Escape: () => closePair(),
  b: () => setMode("blink"), x: () => setMode("difference"),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.target.matches("input, select, textarea, code, summary") && event.target.type !== "checkbox") return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (dialog.open) {
    const choice = choicesOf(shown.pair).find(([, , letter]) => letter === key);
    const act = choice ? () => judge(shown.pair, choice[0]) : KEYS[key];
    if (!act) return;
    event.preventDefault();
    act();
  } else if ((key === "j" || key === "k") && galleryOf(view.tab)) {
    event.preventDefault();
    moveBy(key === "j" ? 1 : -1);
  }
}

function themeButton() {
  const button = byId("theme");
  const dark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; button.setAttribute("aria-label", `${button.textContent} colours`); };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("daskim-theme", document.documentElement.dataset.theme); } catch { /* not kept */ }
    name();
  });
  name();
  button.hidden = false;
}

readVerdicts();
showTabs();
drawVerdicts();
themeButton();
for (const button of document.querySelectorAll(".copy")) {
  const code = button.previousElementSibling;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await copy(code.textContent, "Command");
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1200);
  });
}
for (const link of document.querySelectorAll("[data-tab]")) {
  if (!byId(`tab-${link.dataset.tab}`)) link.removeAttribute("href");
  else link.addEventListener("click", () => showTab(link.dataset.tab));
}
document.addEventListener("keydown", onKey);
document.documentElement.dataset.ready = performance.now().toFixed(0);
