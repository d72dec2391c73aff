// Light or dark: as the system, until the reader chooses. A classic script in <head>, so that the
// page is never shown in the other theme first. It also marks that scripts run (class "js").
"use strict";
{
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  root.classList.add("js");

  // Storage throws if the reader has forbidden it; then the choice lasts as long as the page.
  const remembered = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null;
    }
  };
  const remember = (theme) => {
    try {
      localStorage.setItem("theme", theme);
    } catch {
      // It stays for this page.
    }
  };
  const current = () => root.dataset.theme ?? (dark.matches ? "dark" : "light");
  const apply = (theme) => {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  };
  // The button says what it does, not what is.
  const label = () => {
    for (const button of document.querySelectorAll("[data-theme-toggle]")) {
      button.textContent = current() === "dark" ? "Light" : "Dark";
      button.ariaLabel = `Use the ${button.textContent.toLowerCase()} theme`;
    }
  };

  apply(remembered());
  dark.addEventListener("change", label);
  // The same choice in every tab.
  addEventListener("storage", ({ key, newValue }) => {
    if (key === "theme") {
      apply(newValue);
      label();
    }
  });
  addEventListener("DOMContentLoaded", () => {
    label();
    for (const button of document.querySelectorAll("[data-theme-toggle]")) {
      button.addEventListener("click", () => {
        apply(current() === "dark" ? "light" : "dark");
        remember(root.dataset.theme);
        label();
      });
    }
  });
}
