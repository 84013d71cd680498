"use strict";
(() => {
  const frames = [...document.querySelectorAll(".frame")];
  const links = [...document.querySelectorAll("[data-go]")];
  const play = document.getElementById("play");
  let now = frames.length - 1, timer = null;

  const show = (number) => {
    now = (number + frames.length) % frames.length;
    frames.forEach((frame, i) => { frame.hidden = i !== now; });
    links.forEach((link) => {
      const here = Number(link.dataset.go) === now;
      link.classList.toggle("now", here);
      if (link.tagName === "BUTTON") {
        link.setAttribute("aria-pressed", String(here));
        if (here) link.parentElement.scrollTo({ left: link.offsetLeft - link.parentElement.clientWidth / 2, behavior: "smooth" });
      }
    });
  };
  const stop = () => { clearInterval(timer); timer = null; play.textContent = "Play"; };
  play.addEventListener("click", () => {
    if (timer) return stop();
    play.textContent = "Stop";
    show(now === frames.length - 1 ? 0 : now + 1);
    timer = setInterval(() => { if (now === frames.length - 1) stop(); else show(now + 1); }, 1100);
  });
  links.forEach((link) => link.addEventListener("click", () => { stop(); show(Number(link.dataset.go)); }));
  document.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) { stop(); show(now + step); event.preventDefault(); }
  });
  document.querySelectorAll("[data-layer]").forEach((button) => button.addEventListener("click", () => {
    const off = document.body.classList.toggle(`no-${button.dataset.layer}`);
    button.setAttribute("aria-pressed", String(!off));
  }));
  const root = document.documentElement, toggle = document.getElementById("theme");
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  toggle.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; });
  show(now);
})();
