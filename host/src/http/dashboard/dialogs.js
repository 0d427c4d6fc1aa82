// Questions to the reader, and what there is to tell.

import { el, text } from "./dom.js";

const byId = (id) => document.getElementById(id);

/** How long a message stays. A failure stays until it is dismissed. */
const MESSAGE_TIME = 8000;

/** Asks before something is changed. */
export function confirmed({ title, question, yes, no }) {
  const dialog = byId("confirm");
  text(byId("confirm-title"), title);
  text(byId("confirm-text"), question);
  text(byId("confirm-yes"), yes);
  text(byId("confirm-no"), no);
  const asked = new AbortController();
  return new Promise((resolve) => {
    const answer = (value) => {
      asked.abort();
      dialog.close();
      resolve(value);
    };
    const options = { signal: asked.signal };
    byId("confirm-yes").addEventListener("click", () => answer(true), options);
    byId("confirm-no").addEventListener("click", () => answer(false), options);
    dialog.addEventListener("cancel", () => answer(false), options);
    dialog.showModal();
    byId("confirm-no").focus();
  });
}

/** Asks for a token; null if the reader would rather not. `reason` is what the host said. */
export function askForToken(reason) {
  const dialog = byId("sign-in");
  if (dialog.open) dialog.close();
  text(byId("sign-in-text"), reason);
  byId("token").value = "";
  const asked = new AbortController();
  return new Promise((resolve) => {
    const answer = (value) => {
      asked.abort();
      byId("token").value = "";
      dialog.close();
      resolve(value);
    };
    const options = { signal: asked.signal };
    byId("sign-in-form").addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        answer(byId("token").value.trim());
      },
      options,
    );
    byId("sign-in-no").addEventListener("click", () => answer(null), options);
    dialog.addEventListener("cancel", () => answer(null), options);
    dialog.showModal();
    byId("token").focus();
  });
}

/** Tells something, also to those who don't see the page. */
export function tell(message, isFailure = false) {
  const dismiss = el("button", { type: "button", "aria-label": `Dismiss: ${message}` }, "×");
  const shape = el("span", { class: "shape", "aria-hidden": "true" }, isFailure ? "▲" : "✓");
  const node = el("p", { class: isFailure ? "bad" : "ok" }, shape, el("span", {}, message), dismiss);
  dismiss.addEventListener("click", () => node.remove());
  byId("messages").append(node);
  if (!isFailure) setTimeout(() => node.remove(), MESSAGE_TIME);
}
