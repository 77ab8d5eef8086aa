// What the gateway tells by itself: its status every second and alerts as they change, as server-sent events. Where these do not come - a proxy
// that buffers, a gateway without them - the status is asked for instead. One place that knows whether there is a connection.
import { signal } from "./store";
import { Failure, get } from "./api";
import { expired, gate, session } from "./session";
import type { Status } from "./types";

export type Link = "connecting" | "live" | "polling" | "lost";

/** The last status, undefined until the first. */
export const status = signal<Status | undefined>(undefined);
/** Whether news come, and how. */
export const link = signal<Link>("connecting");
/** When the last news came, ms; 0: never. */
export const heard = signal(0);
/** Why there is no connection. */
export const lostWhy = signal("");
/** Goes up with each alert that changed, and when everything has to be read again. */
export const alertsChanged = signal(0);
/** Messages per second, a point each second, for the last minutes. null where no news came. */
export const rates = signal<(number | null)[]>([]);
/** The gateway's clock minus this computer's, ms. Ages are counted on the gateway's clock. */
let clockOffset = 0;

const keep = 300; // seconds of rates
const quietFor = 3500; // ms without news until the status is asked for
const reopenAfter = 10_000;

/** Now by the gateway's clock, ms. */
export const gatewayNow = (): number => Date.now() + clockOffset;

let lastPoint = 0;
function take(s: Status) {
  const now = Date.now();
  clockOffset = Date.parse(s.now) - now;
  const list = rates.value.slice(-keep);
  if (lastPoint && now - lastPoint > 5000) list.push(null);
  if (!lastPoint || now - lastPoint > 500) {
    list.push(s.messages.rate_per_second);
    lastPoint = now;
  }
  rates.value = list.slice(-keep);
  status.value = s;
  heard.value = now;
  lostWhy.value = "";
}

let source: EventSource | null = null;
let reopenAt = 0;

function open() {
  source?.close();
  source = new EventSource("api/v1/events?types=status,alert");
  source.addEventListener("status", (e) => {
    take(JSON.parse((e as MessageEvent<string>).data) as Status);
    link.value = "live";
  });
  source.addEventListener("alert", () => { alertsChanged.value++; });
  source.addEventListener("resync", () => { alertsChanged.value++; });
  source.onerror = () => {
    // The browser tries again by itself unless the answer was an error; then it is tried again later.
    if (source?.readyState === EventSource.CLOSED) reopenAt = Date.now() + reopenAfter;
    void poll();
  };
}

function shut() {
  source?.close();
  source = null;
}

let asking = false;
async function poll() {
  if (asking) return;
  asking = true;
  try {
    const first = heard.value === 0 || link.value === "lost";
    take(await get<Status>("api/v1/status", AbortSignal.timeout(5000)));
    if (first && link.value !== "live") alertsChanged.value++;
    link.value = "polling";
  } catch (e) {
    if (e instanceof Failure && e.status === 401) expired();
    else if (Date.now() - heard.value > quietFor / 2) {
      link.value = "lost";
      lostWhy.value = e instanceof Failure ? e.message : "The gateway does not answer.";
    }
  } finally {
    asking = false;
  }
}

const admitted = (): boolean => session.value !== undefined && gate.value === "";

function watch() {
  if (document.hidden || !admitted()) return;
  const now = Date.now();
  if (now - heard.value > quietFor) void poll();
  else if (link.value === "polling" && now - heard.value > 1800) void poll();
  if (reopenAt && now >= reopenAt && link.value !== "lost") {
    reopenAt = 0;
    open();
  }
  // After a loss the browser's own retry may be far off.
  if (link.value === "polling" && source?.readyState === EventSource.CONNECTING && !reopenAt) reopenAt = now + 3000;
}

/** Listens while somebody is admitted; called once. A page nobody looks at lets go of its connection, of which a browser has six. */
export function startLive() {
  const begin = () => {
    if (admitted() && !source) {
      open();
      void poll();
      alertsChanged.value++;
    } else if (!admitted()) shut();
  };
  session.follow(begin);
  gate.follow(begin);
  setInterval(watch, 1000);
  let away: ReturnType<typeof setTimeout> | undefined;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(away);
    if (document.hidden) {
      away = setTimeout(shut, 30_000);
    } else begin();
  });
}
