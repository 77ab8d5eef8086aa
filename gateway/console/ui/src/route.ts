// Where the page is: #/devices/abc?from=1h. The part after # never reaches the gateway, so that it serves one document.
import { signal } from "./store";

export interface Route { path: string[]; query: URLSearchParams }

function part(text: string): string {
  try { return decodeURIComponent(text); } catch { return text; }
}

function parse(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  return { path: path.split("/").filter(Boolean).map(part), query: new URLSearchParams(query) };
}

export const route = signal(parse(location.hash));
/** Whether somebody has gone from one view to another yet. */
export let moved = false;
addEventListener("hashchange", () => {
  moved = true;
  route.value = parse(location.hash);
});

export const to = (...path: string[]): string => "#/" + path.map(encodeURIComponent).join("/");

export function go(hash: string) { location.hash = hash; }

/** Changes the query in place, without a step in the browser's history. "" removes a name. */
export function setQuery(changes: Record<string, string | string[]>) {
  const { path, query } = route.value;
  const q = new URLSearchParams(query);
  for (const [k, v] of Object.entries(changes)) {
    q.delete(k);
    for (const one of Array.isArray(v) ? v : [v]) if (one) q.append(k, one);
  }
  const text = q.toString();
  const hash = to(...path) + (text ? "?" + text : "");
  if (hash === location.hash) return;
  history.replaceState(null, "", hash);
  route.value = parse(hash);
}
