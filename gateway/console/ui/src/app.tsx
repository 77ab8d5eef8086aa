// The frame around every view: navigation, who is logged in, whether there is a connection.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { help, KeyHelp, useKeys } from "./keys";
import { heard, link, lostWhy, status } from "./live";
import { Ago } from "./parts/bits";
import { Said, say } from "./parts/dialog";
import { Icon } from "./parts/icon";
import { route } from "./route";
import { use } from "./store";
import { gate, logout, session } from "./session";
import { chooseTheme, theme, type Theme } from "./theme";
import { chooseZone, fullTime, zoneChoice, zoneName, zoneOf, type ZoneChoice } from "./time";
import { lazy } from "./lazy";
import { openPlaces, type Place } from "./places";
import { Alerts } from "./views/alerts";
import { Devices } from "./views/devices";
import { Overview } from "./views/overview";
import { Empty } from "./parts/states";
import { count, type Tone } from "./words";

const Alert = lazy(() => import("./views/alert").then((m) => m.Alert));
const Audit = lazy(() => import("./views/audit").then((m) => m.Audit));
const Demo = lazy(() => import("./views/demo").then((m) => m.Demo));
const Device = lazy(() => import("./views/device").then((m) => m.Device));
const Gate = lazy(() => import("./views/gate").then((m) => m.Gate));
const Ledger = lazy(() => import("./views/ledger").then((m) => m.Ledger));
const Quarantine = lazy(() => import("./views/quarantine").then((m) => m.Quarantine));
const Rules = lazy(() => import("./views/rules").then((m) => m.Rules));
const Tokens = lazy(() => import("./views/tokens").then((m) => m.Tokens));
const Uplink = lazy(() => import("./views/uplink").then((m) => m.Uplink));

interface Badge { n: number; tone: Tone; say: string }

function useBadges(): Record<string, Badge | false> {
  const s = use(status);
  const firing = s?.alerts.filter((a) => a.state === "firing").length ?? 0;
  const stuck = s ? [...s.destinations, ...s.webhooks].filter((d) => d.last_error && d.state !== "idle").length : 0;
  return {
    alerts: firing > 0 && { n: firing, tone: "bad", say: "firing" },
    uplink: stuck > 0 && { n: stuck, tone: "warn", say: "not delivering" },
    ledger: !!s && s.ledger.imbalance !== 0 && { n: Math.abs(s.ledger.imbalance), tone: "bad", say: "not accounted for" },
  };
}

function Nav({ label, part, at, close, children }: { label: string; part: [number, number?]; at: string; close?: () => void; children?: ComponentChildren }) {
  const badges = useBadges();
  use(session);
  return <nav aria-label={label} onClick={close}>{openPlaces().slice(...part).map((p) => <NavLink key={p.key} place={p} badge={badges[p.key]} at={at} />)}{children}</nav>;
}

function NavLink({ place, badge, at }: { place: Place; badge: Badge | false | undefined; at: string }) {
  return (
    <a href={"#/" + place.key} aria-current={at === place.key ? "page" : undefined}>
      <Icon name={place.icon} size={20} /><span>{place.name}</span>
      {badge && <b class={"count " + badge.tone}>{count(badge.n)}<span class="unseen"> {badge.say}</span></b>}
    </a>
  );
}

const themes: Record<Theme, [Theme, string]> = { auto: ["light", "as the system"], light: ["dark", "light"], dark: ["auto", "dark"] };

function Settings() {
  const [next, text] = themes[use(theme)];
  const user = use(session)?.user;
  return (
    <div class="settings">
      <label class="zone"><span class="unseen">Time zone</span>
        <select value={use(zoneChoice)} onChange={(e) => chooseZone(e.currentTarget.value as ZoneChoice)} title={"Times are in " + zoneName()}>
          <option value="browser">Browser: {zoneOf("browser")}</option>
          <option value="gateway">Gateway: {zoneOf("gateway")}</option>
          <option value="utc">UTC</option>
        </select>
      </label>
      <button type="button" class="plain row" onClick={() => chooseTheme(next)}><Icon name="half" /><span>Colours: {text}</span></button>
      <button type="button" class="plain row wide-only" onClick={() => { help.value = true; }}><Icon name="keys" /><span>Keys</span></button>
      {user && <button type="button" class="plain row" onClick={() => { logout().catch((e: Error) => say(e.message, "bad")); }}><Icon name="user" /><span>Log out {user}</span></button>}
    </div>
  );
}

function LinkState() {
  const l = use(link);
  const text = { live: "Live", polling: "Live, by asking", connecting: "Connecting", lost: "No connection" }[l];
  const tone = l === "lost" ? "bad" : l === "connecting" ? "quiet" : "good";
  return <p class={"link-state " + tone} role="status"><Icon name={l === "lost" ? "unplugged" : l === "connecting" ? "clock" : "ok"} size={15} /><span>{text}</span></p>;
}

function Lost() {
  if (use(link) !== "lost") return null;
  return (
    <div class="lost" role="alert">
      <Icon name="unplugged" size={20} />
      <p><strong>Disconnected{heard.value ? " since " + fullTime(heard.value) : ""}.</strong> {lostWhy.value} {heard.value
        ? <>What you see is <Ago t={new Date(heard.value).toISOString()} long suffix="" /> old. </> : null}The page keeps trying; the gateway goes on without it.</p>
    </div>
  );
}

function Title({ at }: { at: string }) {
  const s = use(status), known = use(session);
  const name = s?.gateway || known?.gateway || "sluice";
  const firing = s?.alerts.filter((a) => a.state === "firing").length ?? 0;
  const view = openPlaces().find((p) => p.key === at)?.name;
  useEffect(() => { document.title = (firing ? "(" + firing + ") " : "") + (view ? view + " - " : "") + name; }, [firing, view, name]);
  return <p class="brand"><img src="icon.svg" alt="" width="26" height="26" /><span>{name}</span></p>;
}

function Version() {
  const s = use(status);
  return s ? <p class="quiet version">sluice {s.version}</p> : null;
}

function Middle({ path }: { path: string[] }) {
  return (
    <div class="middle">
      <Lost />
      <main id="main" class={use(link) === "lost" ? "stale" : ""}><View path={path} /></main>
      <footer class="zone-line quiet">Times are in {zoneName()}.</footer>
    </div>
  );
}

function View({ path }: { path: string[] }): ComponentChildren {
  const [at = "", id] = path;
  switch (at) {
    case "": return <Overview />;
    case "alerts": return id ? <Alert key={id} fingerprint={id} /> : <Alerts />;
    case "devices": return id ? <Device key={id} id={id} /> : <Devices />;
    case "uplink": return <Uplink name={id ?? ""} />;
    case "quarantine": return <Quarantine />;
    case "rules": return <Rules name={id ?? ""} />;
    case "ledger": return <Ledger />;
    case "audit": return <Audit />;
    case "tokens": return <Tokens />;
    case "demo": return <Demo />;
    default: return <Empty icon="unknown" title="There is no such view."><a href="#/">To the overview</a></Empty>;
  }
}

const onTabs = 4; // views with a tab of their own on a phone

function Frame() {
  const { path } = use(route);
  const at = path[0] ?? "";
  const [more, setMore] = useState(false);
  const close = () => setMore(false);
  use(zoneChoice);
  useKeys();
  const where = path.join("/");
  const arrived = useRef(false);
  useEffect(() => {
    if (!arrived.current) { // the browser begins at the top by itself
      arrived.current = true;
      return;
    }
    close();
    scrollTo({ top: 0 });
    document.getElementById("title")?.focus({ preventScroll: true });
  }, [where]);
  const hidden = !openPlaces().slice(0, onTabs).some((p) => p.key === at);
  return (
    <>
      <a class="skip" href="#title" onClick={(e) => { e.preventDefault(); document.getElementById("title")?.focus(); }}>To the content</a>
      <aside class="side">
        <Title at={at} />
        <Nav label="Views" part={[0]} at={at} />
        <div class="foot"><LinkState /><Settings /><Version /></div>
      </aside>
      <header class="top"><Title at={at} /><LinkState /></header>
      <Middle path={path} />
      <div class="tabs">
        {more && <div class="more" id="more"><Nav label="More views" part={[onTabs]} at={at} close={close} /><Settings /></div>}
        <Nav label="Main views" part={[0, onTabs]} at={at}>
          <button type="button" aria-expanded={more} aria-controls={more ? "more" : undefined} class={hidden ? "current" : ""} onClick={() => setMore(!more)}><Icon name="more" size={20} /><span>More</span></button>
        </Nav>
      </div>
      <KeyHelp />
      <Said />
    </>
  );
}

export function App() {
  const closed = use(gate), known = use(session);
  if (closed) return closed === "out" ? null : <Gate />;
  return known ? <Frame /> : null;
}
