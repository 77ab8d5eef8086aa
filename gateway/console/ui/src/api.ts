// Asking the gateway. Paths are relative to the page, so that a proxy may put the gateway under a prefix.

/** What went wrong with a question. status is 0 where no answer came. */
export class Failure extends Error {
  constructor(readonly status: number, readonly title: string, message: string) { super(message); }
}

const patience = 15_000; // ms until an answer counts as missing

async function ask(method: string, path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  const timeout = AbortSignal.timeout(patience);
  const init: RequestInit = { method, cache: "no-store", signal: signal ? AbortSignal.any([signal, timeout]) : timeout };
  if (method === "POST") {
    init.headers = { "Content-Type": "application/json" };
    init.body = JSON.stringify(body ?? {});
  }
  let r: Response;
  try {
    r = await fetch(path, init);
  } catch (e) {
    if (signal?.aborted) throw e;
    throw new Failure(0, "No answer", "The gateway does not answer.");
  }
  if (r.ok) return r;
  let title = r.statusText || "Error " + r.status, detail = "";
  try {
    const p = await r.json() as { title?: string; detail?: string; error?: string };
    title = p.title ?? title;
    detail = p.detail ?? p.error ?? "";
  } catch { /* not a problem document: the status has to do */ }
  throw new Failure(r.status, title, detail || "The gateway answered " + r.status + " " + title + ".");
}

/** Reads JSON. Throws a Failure, or the signal's reason. */
export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return await (await ask("GET", path, undefined, signal)).json() as T;
}

/** Changes something; the answer's JSON, or undefined where there is none. */
export async function send<T = void>(method: "POST" | "DELETE", path: string, body?: unknown): Promise<T> {
  const r = await ask(method, path, body);
  const text = await r.text();
  return (text ? JSON.parse(text) : undefined) as T;
}

/** A path with its query; what is empty is left out, a list is repeated. */
export function withQuery(path: string, query: Record<string, string | number | string[] | undefined>): string {
  const q = new URLSearchParams();
  for (const [k, v] of Object.entries(query)) {
    for (const one of Array.isArray(v) ? v : [v]) {
      if (one !== undefined && one !== "") q.append(k, String(one));
    }
  }
  const text = q.toString();
  return text ? path + "?" + text : path;
}
