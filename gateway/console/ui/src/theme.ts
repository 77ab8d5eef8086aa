// Light or dark: as the system has it, unless somebody chose.
import { signal } from "./store";

export type Theme = "auto" | "light" | "dark";
const stored = (): Theme => {
  try {
    const v = localStorage.getItem("sluice.theme");
    return v === "light" || v === "dark" ? v : "auto";
  } catch { return "auto"; }
};
export const theme = signal<Theme>(stored());
/** Goes up when colours change, for what is painted on a canvas. */
export const painted = signal(0);

function apply() {
  const root = document.documentElement;
  if (theme.value === "auto") delete root.dataset["theme"];
  else root.dataset["theme"] = theme.value;
  painted.value++;
}

export function chooseTheme(t: Theme) {
  theme.value = t;
  try {
    if (t === "auto") localStorage.removeItem("sluice.theme");
    else localStorage.setItem("sluice.theme", t);
  } catch { /* private window */ }
  apply();
}

apply();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { painted.value++; });

/** The value of a custom property, such as --line. */
export const colour = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
