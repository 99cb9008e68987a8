// Shows the page of now every few seconds, without losing the place where somebody reads.
"use strict";

(() => {
  const SECONDS = 10;
  const main = document.getElementById("content");
  let paused = false;
  let waiting = false;

  const button = document.createElement("button");
  button.type = "button";
  const trouble = document.createElement("p");
  trouble.className = "problem";
  trouble.setAttribute("role", "status");
  trouble.hidden = true;
  main.before(trouble);

  function place() {
    button.textContent = paused ? "Go on" : "Pause";
    button.title = paused ? "Show the page of now again" : "Keep the page as it is";
    document.getElementById("refresh").replaceChildren(button);
  }

  function reading() {
    const selection = document.getSelection();
    return selection !== null && !selection.isCollapsed && main.contains(selection.anchorNode);
  }

  function take(text) {
    const page = new DOMParser().parseFromString(text, "text/html");
    const fresh = page.getElementById("content");
    if (fresh === null) {
      throw new Error("no page");
    }
    const focused = document.activeElement;
    const link = focused !== button && main.contains(focused) ? focused.getAttribute("href") : null;
    const onButton = focused === button;
    main.replaceChildren(...fresh.childNodes);
    document.title = page.title;
    document.querySelector("link[rel=icon]").href = page.querySelector("link[rel=icon]").href;
    place();
    if (onButton) {
      button.focus();
    } else if (link !== null) {
      main.querySelector(`a[href="${CSS.escape(link)}"]`)?.focus({ preventScroll: true });
    }
  }

  async function refresh() {
    if (paused || waiting || document.hidden || reading()) {
      return;
    }
    waiting = true;
    try {
      const answer = await fetch("/", { signal: AbortSignal.timeout(SECONDS * 1000) });
      const text = await answer.text();
      if (!answer.ok) {
        throw new Error(`${answer.status}`);
      }
      take(text);
      trouble.hidden = true;
    } catch {
      trouble.textContent = "notify web does not answer. What is shown is of the time below.";
      trouble.hidden = false;
    } finally {
      waiting = false;
    }
  }

  button.addEventListener("click", () => {
    paused = !paused;
    place();
    refresh();
  });
  document.addEventListener("visibilitychange", refresh);
  place();
  setInterval(refresh, SECONDS * 1000);
})();
