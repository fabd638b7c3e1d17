// Dark or light: as the system has it, or as the reader has chosen here. Set before anything is drawn.
const CHOICES = ["auto", "light", "dark"];
const NAMES = { auto: "Colours: as the system", light: "Colours: light", dark: "Colours: dark" };
let choice = "auto";
try { choice = CHOICES.includes(localStorage.theme) ? localStorage.theme : "auto"; } catch (error) { /* storage is off */ }

function show() {
  const root = document.documentElement, button = document.getElementById("theme");
  if (choice === "auto") root.removeAttribute("data-theme"); else root.dataset.theme = choice;
  if (button) { button.setAttribute("aria-label", NAMES[choice]); button.title = NAMES[choice]; button.dataset.choice = choice; }
}

export function begin() {
  document.getElementById("theme").addEventListener("click", () => {
    choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
    try { localStorage.theme = choice; } catch (error) { /* for this visit only */ }
    show();
  });
  show();
}
show();
