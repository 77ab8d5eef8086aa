// Words and figures for people. Pure: no clock, no document.

const grouped = new Intl.NumberFormat("en");
const six = new Intl.NumberFormat("en", { maximumSignificantDigits: 6, useGrouping: false });
const four = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

/** A count with thousands separated. */
export const count = (n: number): string => grouped.format(n);

/** "1 device", "2 devices", "0 devices". */
export function some(n: number, one: string, many = one + "s"): string {
  return count(n) + " " + (n === 1 ? one : many);
}

/** A measured value: at most six significant digits, a true minus sign; "not finite" for null. */
export function figure(v: number | null | undefined): string {
  if (v === null || v === undefined || !Number.isFinite(v)) return "not finite";
  const a = Math.abs(v);
  const text = a !== 0 && (a >= 1e9 || a < 1e-4) ? v.toExponential(3).replace(/\.?0+e/, "e").replace("e+", "e") : six.format(v);
  return text.replace("-", "\u2212");
}

/** A value and its unit, with a narrow space between them that does not break, none before % and degrees of angle. */
export function measured(v: number | null | undefined, unit = ""): string {
  if (v === null || v === undefined || !Number.isFinite(v) || unit === "") return figure(v);
  return figure(v) + (unit === "%" || unit === "\u00b0" ? "" : "\u202f") + unit;
}

/** Messages, points and the like per second. */
export function perSecond(rate: number): string {
  return (rate >= 100 ? count(Math.round(rate)) : four.format(Math.round(rate * 10) / 10)) + "/s";
}

/** A device's messages per minute, in whichever unit reads best. */
export function perMinute(rate: number): string {
  if (rate <= 0) return "\u2013";
  if (rate >= 120) return four.format(Math.round(rate / 6) / 10) + "/s";
  if (rate >= 1) return four.format(Math.round(rate * 10) / 10) + "/min";
  return four.format(Math.round(rate * 600) / 10) + "/h";
}

/** Bytes in powers of 1024. */
export function bytes(n: number): string {
  const names = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; Math.abs(n) >= 1024 && i < names.length - 1; i++) n /= 1024;
  return (i === 0 || n >= 100 ? String(Math.round(n)) : n.toFixed(1)) + " " + names[i];
}

/** Seconds as the two largest units that are not zero: "3 d 4 h", "12 min 5 s", "0 s". */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "for ever";
  const s = Math.max(0, Math.round(seconds));
  const parts: [number, string][] = [[Math.floor(s / 86400), "d"], [Math.floor(s / 3600) % 24, "h"], [Math.floor(s / 60) % 60, "min"], [s % 60, "s"]];
  const first = parts.findIndex(([n]) => n > 0);
  if (first < 0) return "0 s";
  return parts.slice(first, first + 2).filter(([n]) => n > 0).map(([n, unit]) => n + "\u00a0" + unit).join(" ");
}

/** Seconds in one unit, for lists: "12 s", "5 min", "3 h", "4 d". */
export function shortly(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s < 100) return s + "\u00a0s";
  if (s < 100 * 60) return Math.round(s / 60) + "\u00a0min";
  if (s < 48 * 3600) return Math.round(s / 3600) + "\u00a0h";
  return Math.round(s / 86400) + "\u00a0d";
}

/** When a backlog will be gone. eta is 0 where it is not known. */
export function backlogEnd(pending: number, eta: number, held: boolean): string {
  if (pending === 0) return "nothing waits";
  if (held) return "held back, kept on disk";
  if (eta < 1) return "leaving as it comes";
  return "gone in " + duration(eta);
}

/** Days of a forecast. null or less than nothing: it does not come to that. */
export function days(n: number | null | undefined): string {
  if (n === null || n === undefined || !Number.isFinite(n) || n < 0 || n > 3650) return "not within ten years";
  if (n < 1 / 24) return "in less than an hour";
  if (n < 2) return "in " + some(Math.round(n * 24), "hour");
  return "in " + some(Math.round(n), "day");
}

export type Tone = "good" | "warn" | "bad" | "info" | "quiet";

/** What a destination's state means, and how bad it is. */
export function outboxState(state: string): { word: string; tone: Tone; icon: string } {
  switch (state) {
    case "idle": return { word: "up to date", tone: "good", icon: "ok" };
    case "sending": return { word: "sending", tone: "good", icon: "send" };
    case "backing_off": return { word: "trying again", tone: "warn", icon: "retry" };
    case "config_error": return { word: "needs somebody", tone: "bad", icon: "stop" };
    case "disabled": return { word: "switched off by the receiver", tone: "bad", icon: "stop" };
    default: return { word: state.replaceAll("_", " "), tone: "info", icon: "info" };
  }
}

export function deviceState(state: string): { word: string; tone: Tone; icon: string } {
  switch (state) {
    case "online": return { word: "online", tone: "good", icon: "ok" };
    case "silent": return { word: "silent", tone: "warn", icon: "silent" };
    case "offline": return { word: "offline", tone: "bad", icon: "unplugged" };
    default: return { word: state || "unknown", tone: "quiet", icon: "unknown" };
  }
}

export function alertState(state: string, severity = ""): { word: string; tone: Tone; icon: string } {
  switch (state) {
    case "firing": return { word: "firing", tone: severity === "info" ? "info" : severity === "warning" ? "warn" : "bad", icon: severity === "critical" || severity === "" ? "stop" : "alert" };
    case "pending": return { word: "pending", tone: "info", icon: "clock" };
    case "resolved": return { word: "resolved", tone: "good", icon: "ok" };
    default: return { word: state || "unknown", tone: "quiet", icon: state === "inactive" ? "ok" : "unknown" };
  }
}

const causes: [RegExp, string][] = [
  [/connection refused/i, "Nothing listens at the destination's address: the service is down, or the address or port is wrong."],
  [/no such host|server misbehaving|name resolution/i, "The destination's name cannot be resolved: check DNS and the configured host name."],
  [/network is unreachable|no route to host/i, "There is no route to the destination: the site's uplink seems to be down."],
  [/i\/o timeout|deadline exceeded|timed? ?out/i, "The destination does not answer in time: the link is down or very slow."],
  [/certificate|x509|tls:/i, "The destination's certificate is not accepted: check ca_file, the host name and this machine's clock."],
  [/\b40[13]\b|unauthori[sz]ed|forbidden/i, "The destination does not accept the credentials: check the token or password file and its rights."],
  [/\b404\b|not found/i, "The destination knows no such bucket, topic or path: check the configuration."],
  [/\b429\b|too many requests/i, "The destination asks to send less; the gateway slows down by itself."],
  [/EOF|reset by peer|broken pipe|closed/i, "The connection breaks off before an answer: the link is down or something on the way cuts it."],
];

/** What a sink's error means and what to do, "" where the error has to speak for itself. */
export function cause(error: string): string {
  return causes.find(([pattern]) => pattern.test(error))?.[1] ?? "";
}

const stages: Record<string, string> = { decode: "unreadable payload", time: "implausible time", sink: "refused by the destination" };
export const stageText = (stage: string): string => stages[stage] ?? stage;
/** A code such as not_finite in words. */
export const plain = (code: string): string => code.replaceAll("_", " ");

/** Words joined as in a sentence: "a, b and c"; beyond max, "a, b and 3 more". */
export function listed(words: string[], max = 3): string {
  if (words.length > max) words = [...words.slice(0, max - 1), words.length - max + 1 + " more"];
  return words.length < 2 ? words.join("") : words.slice(0, -1).join(", ") + " and " + words[words.length - 1];
}

/** Labels as text, without those named. */
export function labelText(labels: Labels, ...without: string[]): string {
  return Object.entries(labels).filter(([k]) => !without.includes(k)).map(([k, v]) => k + "=" + v).join(", ");
}
type Labels = Record<string, string>;
