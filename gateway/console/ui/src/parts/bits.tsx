// The small things every view is made of.
import { route, setQuery } from "../route";
import { signal, use } from "../store";
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { gatewayNow } from "../live";
import { briefTime, fullTime, zoneName } from "../time";
import type { Labels } from "../types";
import { count, duration, shortly, type Tone } from "../words";
import { Icon } from "./icon";

/** Goes up each second, for ages. */
const second = signal(0);
setInterval(() => { if (!document.hidden) second.value++; }, 1000);

/** A state: icon, word and colour together. */
export function State({ word, tone, icon }: { word: string; tone: Tone; icon: string }) {
  return <span class={"state " + tone}><Icon name={icon} size={16} /><span>{word}</span></span>;
}

/** A small mark beside a name. */
export function Mark({ children, tone = "quiet", icon }: { children: ComponentChildren; tone?: Tone; icon?: string }) {
  return <span class={"mark " + tone}>{icon && <Icon name={icon} size={13} />}{children}</span>;
}

/** How long ago t was, counting; the full time on hover. */
export function Ago({ t, long = false, none = "never", suffix = " ago" }: { t: string | undefined; long?: boolean; none?: string; suffix?: string }) {
  use(second);
  const ms = t ? Date.parse(t) : NaN;
  if (!Number.isFinite(ms)) return <span class="quiet">{none}</span>;
  const age = (gatewayNow() - ms) / 1000;
  return <time dateTime={t} title={fullTime(ms) + " " + zoneName()}>{(long ? duration(age) : shortly(age)) + suffix}</time>;
}

/** A point in time, in the chosen zone. */
export function When({ t, none = "\u2013" }: { t: string | undefined; none?: string }) {
  const ms = t ? Date.parse(t) : NaN;
  if (!Number.isFinite(ms)) return <span class="quiet">{none}</span>;
  return <time dateTime={t} title={fullTime(ms) + " " + zoneName()}>{briefTime(ms, gatewayNow())}</time>;
}

/** Labels as chips; with pick they are buttons. */
export function Chips({ labels, without = [], pick }: { labels: Labels; without?: string[]; pick?: (name: string, value: string) => void }) {
  const list = Object.entries(labels).filter(([k]) => !without.includes(k));
  if (list.length === 0) return null;
  return (
    <span class="chips">
      {list.map(([k, v]) => pick
        ? <button type="button" class="chip" key={k} onClick={() => pick(k, v)} title={"Only " + k + "=" + v}><i>{k}</i>{v}</button>
        : <span class="chip" key={k}><i>{k}</i>{v}</span>)}
    </span>
  );
}

/** A bar of how full something is, in words as well. */
export function Meter({ value, max, label, tone = "info" }: { value: number; max: number; label: string; tone?: Tone }) {
  const share = max > 0 ? Math.min(1, value / max) : 0;
  return (
    <div class={"meter " + tone} role="meter" aria-valuenow={Math.round(share * 100)} aria-valuemin={0} aria-valuemax={100} aria-label={label}>
      <div style={{ width: (share > 0 ? Math.max(1, share * 100) : 0) + "%" }} />
    </div>
  );
}

/** Progress of long work. total 0: not known. */
export function Progress({ done, total, label }: { done: number; total: number; label: string }) {
  return (
    <div class="progress">
      <progress max={total || 1} value={total ? done : undefined} aria-label={label} />
      <span>{total ? Math.floor((done / total) * 100) + " %" : ""} {label}</span>
    </div>
  );
}

/** A view's heading, with what belongs on its right. */
export function Heading({ title, note, children }: { title: string; note?: ComponentChildren; children?: ComponentChildren }) {
  return (
    <header class="heading">
      <div><h1 tabIndex={-1} id="title">{title}</h1>{note && <p class="quiet">{note}</p>}</div>
      {children && <div class="actions">{children}</div>}
    </header>
  );
}

/** One of a few choices, as buttons in a row. */
export function Choice<T extends string>({ label, value, options, choose }: {
  label: string; value: T; options: readonly (readonly [T, ComponentChildren])[]; choose: (v: T) => void;
}) {
  return (
    <div class="choice" role="group" aria-label={label}>
      {options.map(([v, text]) => <button type="button" key={v} aria-pressed={v === value} onClick={() => choose(v)}>{text}</button>)}
    </div>
  );
}

/** The search field of a view; what is searched for stands in the address. */
export function Search({ what, hint, name = "search" }: { what: string; hint: string; name?: string }) {
  return <input type="search" aria-label={"Search " + what} placeholder={hint} value={use(route).query.get(name) ?? ""} onInput={(e) => setQuery({ [name]: e.currentTarget.value })} />;
}

/** A table that scrolls by itself where it is too wide. A heading that begins with # is over numbers, one that is no text as well. */
export function Table({ label, head, children }: { label: string; head: ComponentChildren[]; children: ComponentChildren }) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={label}>
      <table class="figures">
        <thead><tr>{head.map((h, i) => <th key={i} scope="col" class={typeof h !== "string" || h.startsWith("#") ? "num" : ""}>{typeof h === "string" ? h.replace("#", "") : h}</th>)}</tr></thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}

/** The first of many, and a button for more: what nobody looks at is not drawn. */
export function First<T>({ of, children }: { of: T[]; children: (list: T[]) => ComponentChildren }) {
  const [n, more] = useState(60);
  return <>{children(of.slice(0, n))}{of.length > n && <p class="more-line"><button type="button" onClick={() => more(n * 4)}>Show more of {count(of.length)}</button></p>}</>;
}

/** A card with a title. */
export function Card({ title, id, children, extra, cls = "" }: { title?: ComponentChildren; id?: string; children: ComponentChildren; extra?: ComponentChildren; cls?: string }) {
  return (
    <section class={"card " + cls} aria-labelledby={id}>
      {title && <header><h2 id={id}>{title}</h2>{extra}</header>}
      {children}
    </section>
  );
}
