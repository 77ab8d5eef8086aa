// Keys: one letter goes somewhere after g, / searches, ? shows this list. Never while somebody types, never with a modifier.
import { signal, use } from "./store";
import { useEffect } from "preact/hooks";
import { Dialog } from "./parts/dialog";
import { openPlaces } from "./places";
import { go } from "./route";

export const help = signal(false);

const typing = (e: KeyboardEvent): boolean => {
  const t = e.target as HTMLElement;
  return t.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(t.tagName);
};

export function useKeys() {
  useEffect(() => {
    let armed = 0;
    const down = (e: KeyboardEvent) => {
      if (e.ctrlKey || e.metaKey || e.altKey || e.defaultPrevented) return;
      if (e.key === "Escape" && typing(e)) {
        (e.target as HTMLElement).blur();
        return;
      }
      if (typing(e) || document.querySelector("dialog[open]")) return;
      if (e.key === "?") help.value = true;
      else if (e.key === "/") {
        const search = document.querySelector<HTMLInputElement>("input[type=search]");
        if (search) { e.preventDefault(); search.focus(); search.select(); }
      } else if (e.key === "g") {
        armed = Date.now();
        return;
      } else if (armed && Date.now() - armed < 1500) {
        const place = openPlaces().find((p) => p.letter === e.key);
        if (place) {
          e.preventDefault();
          go("#/" + place.key);
        }
      } else if (e.key === "j" || e.key === "k") {
        const at = document.activeElement;
        if (at?.closest(".rows")) at.dispatchEvent(new KeyboardEvent("keydown", { key: e.key === "j" ? "ArrowDown" : "ArrowUp", bubbles: true, cancelable: true }));
        else document.querySelector<HTMLElement>(".rows a, .rows button")?.focus();
      }
      armed = 0;
    };
    addEventListener("keydown", down);
    return () => removeEventListener("keydown", down);
  }, []);
}

export function KeyHelp() {
  if (!use(help)) return null;
  const row = (keys: string[], text: string) => <div key={text}><dt>{keys.map((k, i) => <span key={k}>{i > 0 && " then "}<kbd>{k}</kbd></span>)}</dt><dd>{text}</dd></div>;
  return (
    <Dialog title="Keys" close={() => { help.value = false; }}>
      <dl class="keys">
        {openPlaces().map((p) => row(["g", p.letter], p.hint ?? p.name))}
        {row(["/"], "Search in this view")}
        {row(["j"], "Next row of a list; arrow down does the same")}
        {row(["k"], "Row before; arrow up does the same")}
        {row(["Enter"], "Open the row")}
        {row(["Esc"], "Close a dialog, leave a field")}
        {row(["?"], "This list")}
      </dl>
    </Dialog>
  );
}
