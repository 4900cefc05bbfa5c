try {
  const theme = localStorage.getItem("daskim-theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch { /* a page from a file may have no storage */ }
