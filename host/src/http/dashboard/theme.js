// Light or dark: as the system has it, or as the reader wants it here.

import { text } from "./dom.js";

const KEY = "memcell-theme";
const CHOICES = [
  ["system", "as the system"],
  ["light", "light"],
  ["dark", "dark"],
];

function remembered() {
  try {
    const choice = localStorage.getItem(KEY);
    return CHOICES.some(([name]) => name === choice) ? choice : "system";
  } catch {
    // Storage can be forbidden; then the choice holds until the page is closed.
    return "system";
  }
}

function remember(choice) {
  try {
    localStorage.setItem(KEY, choice);
  } catch {
    // As above.
  }
}

export function start(button) {
  let choice = remembered();
  const show = () => {
    document.documentElement.dataset.theme = choice;
    text(button, `Theme: ${CHOICES.find(([name]) => name === choice)[1]}`);
  };
  button.addEventListener("click", () => {
    const at = CHOICES.findIndex(([name]) => name === choice);
    choice = CHOICES[(at + 1) % CHOICES.length][0];
    remember(choice);
    show();
  });
  show();
}
