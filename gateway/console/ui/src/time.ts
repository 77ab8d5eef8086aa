// Times for people, in the zone they chose: this browser's, the gateway's, or UTC. The zone is always named.
import { signal } from "./store";
import { session } from "./session";

export type ZoneChoice = "browser" | "gateway" | "utc";

const stored = (): ZoneChoice => {
  try {
    const v = localStorage.getItem("sluice.zone");
    return v === "gateway" || v === "utc" ? v : "browser";
  } catch { return "browser"; }
};
export const zoneChoice = signal<ZoneChoice>(stored());
export function chooseZone(z: ZoneChoice) {
  zoneChoice.value = z;
  try { localStorage.setItem("sluice.zone", z); } catch { /* private window */ }
}

const browserZone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

function valid(zone: string): boolean {
  try { new Intl.DateTimeFormat("en", { timeZone: zone }); return true; } catch { return false; }
}

/** The zone of each choice; the gateway's is UTC where it says none that this browser knows. */
export function zoneOf(choice: ZoneChoice): string {
  const told = session.value?.time_zone ?? "";
  return choice === "utc" ? "UTC" : choice === "gateway" ? (told && valid(told) ? told : "UTC") : browserZone;
}
/** The chosen zone. Frame follows the choice, and draws everything again when it changes. */
export const zone = (): string => zoneOf(zoneChoice.value);

const made = new Map<string, ReturnType<typeof makeFormats>>();
function formats() {
  const timeZone = zone();
  let f = made.get(timeZone);
  if (!f) made.set(timeZone, f = makeFormats(timeZone));
  return f;
}

function makeFormats(timeZone: string) {
  const make = (o: Intl.DateTimeFormatOptions) => new Intl.DateTimeFormat("en-GB", { timeZone, hourCycle: "h23", ...o });
  return {
    full: make({ year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" }),
    time: make({ hour: "2-digit", minute: "2-digit", second: "2-digit" }),
    short: make({ day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }),
    date: make({ year: "numeric", month: "short", day: "numeric" }),
    day: make({ year: "numeric", month: "2-digit", day: "2-digit" }),
    name: make({ timeZoneName: "shortOffset" }),
  };
}

const parse = (t: string | number): number => (typeof t === "number" ? t : Date.parse(t));

/** 22 Nov 2026, 19:40:09 */
export function fullTime(t: string | number): string {
  const ms = parse(t);
  return Number.isFinite(ms) ? formats().full.format(ms) : "";
}

/** 19:40:09 today, else 21 Nov, 19:40; half a year off, 20 Feb 2031. */
export function briefTime(t: string | number, now = Date.now()): string {
  const ms = parse(t);
  if (!Number.isFinite(ms)) return "";
  const f = formats();
  if (Math.abs(ms - now) > 180 * 86400_000) return f.date.format(ms);
  return f.day.format(ms) === f.day.format(now) ? f.time.format(ms) : f.short.format(ms);
}

/** "Europe/Berlin (GMT+1)" */
export function zoneName(): string {
  const offset = formats().name.formatToParts(Date.now()).find((p) => p.type === "timeZoneName")?.value ?? "";
  return zone() === "UTC" ? "UTC" : zone().replaceAll("_", " ") + (offset ? " (" + offset + ")" : "");
}

/** Seconds from t until now, both by the gateway's clock; NaN where t is not known. */
export const ageOf = (t: string | undefined, nowMs: number): number => (t ? (nowMs - Date.parse(t)) / 1000 : NaN);
