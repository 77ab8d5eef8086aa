// Who sits before the page, and what they may do. The gateway decides; the page only leaves out what would be refused.
import { signal } from "./store";
import { Failure, get, send } from "./api";
import type { Session } from "./types";

/** undefined: not known yet; "login", "setup": somebody has to log in first. */
export const session = signal<Session | undefined>(undefined);
export const gate = signal<"" | "login" | "setup" | "failed" | "out">("");
export const gateWhy = signal("");

const nobody: Session = { user: "", role: "admin", scope: {}, login_required: false, setup_required: false, demo: false, version: "", gateway: "", time_zone: "" };

export async function readSession(): Promise<void> {
  try {
    const s = await get<Session>("api/v1/session");
    const before = session.value;
    if (before?.user && s.user && (s.user !== before.user || s.role !== before.role || JSON.stringify(s.scope) !== JSON.stringify(before.scope))) {
      location.reload(); // nothing of what the one before could see stays in the page
      return;
    }
    gate.value = s.setup_required ? "setup" : s.login_required && !s.role ? "login" : ""; // first: who follows the session looks at it
    session.value = { ...nobody, ...s };
  } catch (e) {
    const status = e instanceof Failure ? e.status : 0;
    if (status === 401) gate.value = "login";
    else if (status === 404) session.value = nobody;
    else {
      gate.value = "failed";
      gateWhy.value = e instanceof Failure ? e.message : String(e);
    }
  }
}

/** The session has ended on the gateway's side. */
export function expired() {
  if (gate.value === "") gate.value = "login";
}

export async function login(user: string, password: string): Promise<void> {
  await send("POST", "api/v1/login", { user, password });
  await readSession();
}

export async function setup(token: string, user: string, password: string): Promise<void> {
  await send("POST", "api/v1/setup", { token, user, password });
  await readSession();
  if (gate.value === "login") await login(user, password);
}

export async function logout(): Promise<void> {
  gate.value = "out"; // before, so that nobody asks with a session that is over
  try {
    await send("POST", "api/v1/logout");
  } finally {
    location.reload();
  }
}

const ranks = ["", "viewer", "operator", "admin"];
export const may = (role: "viewer" | "operator" | "admin"): boolean => ranks.indexOf(session.value?.role ?? "") >= ranks.indexOf(role);

/** Whether somebody sees the whole site. Who is confined to labels is refused what has none: outboxes, quarantine, ledger, rules, audit. */
export const unconfined = (): boolean => Object.keys(session.value?.scope ?? {}).length === 0;

/** The name that goes with what somebody does where nobody logs in; kept by the browser. */
export const ownName = {
  get: (): string => { try { return localStorage.getItem("sluice.name") ?? ""; } catch { return ""; } },
  set: (name: string) => { try { localStorage.setItem("sluice.name", name); } catch { /* private window */ } },
};
