// Every page works without this file. It adds: the theme switch, relative times, a filter for long tables,
// confirmations before dangerous forms, and live figures.
"use strict";

const root = document.documentElement;

function setTheme(theme) {
  if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
  for (const image of document.querySelectorAll("figure picture")) {
    // The switch overrules the system's choice, which the picture's own sources follow.
    const source = image.querySelector("source"), shown = image.querySelector("img");
    const url = new URL(shown.src);
    const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    url.searchParams.set("theme", dark ? "dark" : "light");
    if (source) source.remove();
    if (shown.src !== url.href) shown.src = url.href;
  }
}

function startTheme() {
  const button = document.getElementById("theme");
  let stored = null;
  try { stored = localStorage.getItem("theme"); } catch { /* storage is switched off */ }
  const known = stored === "dark" || stored === "light" ? stored : null;
  if (known) setTheme(known);
  if (!button) return;
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const tell = () => { button.textContent = dark() ? "Light" : "Dark"; button.setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} colours`); };
  button.hidden = false;
  tell();
  button.addEventListener("click", () => {
    const next = dark() ? "light" : "dark";
    try { localStorage.setItem("theme", next); } catch { /* it lasts for this page */ }
    setTheme(next);
    tell();
  });
}

function relativeTimes() {
  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  const units = [["day", 86400], ["hour", 3600], ["minute", 60]];
  for (const time of document.querySelectorAll("time[datetime]:not(.fixed)")) {
    const seconds = (Date.parse(time.dateTime) - Date.now()) / 1000;
    if (!Number.isFinite(seconds) || Math.abs(seconds) > 30 * 86400) continue;
    const unit = units.find(([, size]) => Math.abs(seconds) >= size);
    if (!time.title) time.title = time.textContent;
    time.textContent = unit ? words.format(Math.round(seconds / unit[1]), unit[0]) : "just now";
  }
}

function filterTables() {
  for (const table of document.querySelectorAll("table[data-filter]")) {
    const rows = [...table.tBodies[0].rows];
    if (rows.length < 8) continue;
    const label = document.createElement("label"), field = document.createElement("input");
    field.type = "search";
    label.append(`Filter ${table.dataset.filter}`, field);
    label.className = "filter";
    table.closest(".scroll").before(label);
    field.addEventListener("input", () => {
      const wanted = field.value.toLowerCase();
      for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    });
  }
}

function confirmations() {
  for (const form of document.querySelectorAll("form[data-confirm]")) {
    form.addEventListener("submit", (event) => {
      if (!window.confirm(form.dataset.confirm)) event.preventDefault();
    });
  }
}

startTheme();
relativeTimes();
setInterval(relativeTimes, 30000);
filterTables();
confirmations();

function live() {
  const size = document.getElementById("log-size"), open = document.getElementById("alerts-open");
  if (!(size || open) || !window.EventSource) return;
  const events = new EventSource("/live");
  const show = (place, count) => { if (place) place.textContent = Number(count).toLocaleString("en"); };
  events.addEventListener("entry", (event) => show(size, JSON.parse(event.data).size));
  events.addEventListener("alerts", (event) => {
    show(open, JSON.parse(event.data).open);
    const news = document.getElementById("alerts-news");
    if (news) news.hidden = false;
  });
  window.addEventListener("pagehide", () => events.close());
}

live();
