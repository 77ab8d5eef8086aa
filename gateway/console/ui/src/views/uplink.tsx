// Is data getting out, and when will the backlog be gone?
import { useState } from "preact/hooks";
import { useLoad } from "../load";
import { Ago, Card, Heading, Mark, Meter, State, When } from "../parts/bits";
import { Icon } from "../parts/icon";
import { Empty, Shown } from "../parts/states";
import { may } from "../session";
import type { Outbox } from "../types";
import { backlogEnd, bytes, cause, count, days, duration, outboxState, perSecond, some } from "../words";
import { Purge } from "./purge";

const unitOf = (o: Outbox): string => (o.kind === "webhook" ? "notification" : "point");

function Trouble({ o }: { o: Outbox }) {
  if (!o.last_error) return null;
  const why = cause(o.last_error);
  const over = o.state === "idle" || o.state === "sending";
  return (
    <div class={"notice " + (over ? "quiet" : o.state === "config_error" || o.state === "disabled" ? "bad" : "warn")}>
      <Icon name={over ? "clock" : "alert"} size={18} />
      <div>{why && <p><strong>{why}</strong></p>}<p class="mono">{o.last_error}</p>
        <p class="quiet">{o.last_error_at && <Ago t={o.last_error_at} />}{o.last_success && <>, last success <Ago t={o.last_success} /></>}. {o.state === "backing_off" ? "It tries again by itself; nothing is lost meanwhile." : ""}</p></div>
    </div>
  );
}

function Ladder({ o }: { o: Outbox }) {
  const tiers = o.tiers ?? [];
  if (o.when_full !== "degrade" && tiers.length < 2) return null;
  const max = Math.max(1, ...tiers.map((t) => t.bytes));
  return (
    <section aria-label={"Resolution of what waits for " + o.name}>
      <h3>Resolution of what waits</h3>
      {tiers.length === 0 ? <p class="quiet">All of it as it was measured.</p> : (
        <table class="figures">
          <thead><tr><th scope="col">Window</th><th scope="col" class="num">Points</th><th scope="col" class="num">Size</th><th scope="col"><span class="unseen">Share</span></th></tr></thead>
          <tbody>{tiers.map((t, i) => <tr key={t.window + i}><th scope="row">{t.window || "as measured"}</th><td class="num">{count(t.points)}</td><td class="num">{bytes(t.bytes)}</td><td class="grow"><Meter value={t.bytes} max={max} label={"Share of " + (t.window || "as measured")} /></td></tr>)}</tbody>
        </table>
      )}
      {o.degraded_points > 0 && <p class="quiet">{some(o.degraded_points, "point")} merged into coarser ones so far, to make room.</p>}
    </section>
  );
}

function Forecast({ o }: { o: Outbox }) {
  const f = o.forecast;
  if (!f) return null;
  return (
    <section aria-label={"Forecast for " + o.name}>
      <h3>If the link stayed down</h3>
      {f.measured_over_seconds <= 0 || f.bytes_per_day_in <= 0 ? <p class="quiet">Not known yet: nothing has come in to measure by.</p> : (
        <dl class="facts">
          <div><dt>Comes in</dt><dd>{bytes(f.bytes_per_day_in)} a day</dd></div>
          {o.when_full === "degrade" && <div><dt>Resolution drops</dt><dd>{days(f.days_until_degrade)}</dd></div>}
          <div><dt>{o.when_full === "refuse" ? "Takes no more" : o.when_full === "degrade" ? "Full, after all steps" : "Oldest dropped"}</dt><dd>{days(f.days_until_full)}</dd></div>
          {o.when_full === "degrade" && <div><dt>Fits at {f.coarsest || "the coarsest"}</dt><dd>{f.days_at_coarsest && f.days_at_coarsest < 3650 ? some(Math.round(f.days_at_coarsest), "day") : "more than ten years"}</dd></div>}
        </dl>
      )}
    </section>
  );
}

function Budget({ o }: { o: Outbox }) {
  const b = o.bandwidth;
  if (!b || !(b.bytes_per_second || b.bytes_per_day || b.bytes_per_month || b.paused_reason || b.quiet)) return null;
  return (
    <section aria-label={"Budget of " + o.name}>
      <h3>Budget</h3>
      {b.paused_reason && <p class="notice info"><Icon name="clock" size={16} /><span>Paused: {b.paused_reason}{b.quiet_until && <>, until <When t={b.quiet_until} /></>}.</span></p>}
      {b.bytes_per_day > 0 && <><p class="meter-line"><span>Today</span><span>{bytes(b.sent_today)} of {bytes(b.bytes_per_day)}</span></p><Meter value={b.sent_today} max={b.bytes_per_day} label="Sent today" tone={b.sent_today > 0.9 * b.bytes_per_day ? "warn" : "info"} /></>}
      {b.bytes_per_month > 0 && <><p class="meter-line"><span>This month</span><span>{bytes(b.sent_this_month)} of {bytes(b.bytes_per_month)}</span></p><Meter value={b.sent_this_month} max={b.bytes_per_month} label="Sent this month" tone={b.sent_this_month > 0.9 * b.bytes_per_month ? "warn" : "info"} /></>}
      {b.bytes_per_second > 0 && <p class="quiet">At most {bytes(b.bytes_per_second)} a second.</p>}
    </section>
  );
}

function One({ o, open, purge }: { o: Outbox; open: boolean; purge: (() => void) | undefined }) {
  const unit = unitOf(o), held = !!o.last_error && o.state !== "sending" && o.state !== "idle";
  const share = o.max_bytes > 0 ? o.bytes / o.max_bytes : 0;
  return (
    <Card id={"outbox-" + o.name} cls={open ? "picked" : ""} title={<>{o.name} <span class="quiet">{o.kind === "webhook" ? "webhook" : o.type}</span></>} extra={<State {...outboxState(o.state)} />}>
      <dl class="facts major">
        <div><dt>Waiting</dt><dd><b>{count(o.pending)}</b> <span class="quiet">{o.pending === 1 ? unit : unit + "s"}</span></dd></div>
        <div><dt>Oldest</dt><dd>{o.pending > 0 ? <Ago t={o.oldest} long none="just now" suffix="" /> : <span class="quiet">nothing waits</span>}</dd></div>
        <div><dt>Drain</dt><dd>{held ? "held back" : perSecond(o.rate_per_second)} <span class="quiet">{held ? "kept on disk" : o.pending > 0 ? backlogEnd(o.pending, o.eta_seconds, false) : ""}</span></dd></div>
        <div><dt>Delivered</dt><dd>{count(o.delivered)}</dd></div>
      </dl>
      <Trouble o={o} />
      <p class="meter-line"><span>Outbox on disk {o.when_full && <Mark>{{ degrade: "full: coarser", drop_oldest: "full: drop oldest", refuse: "full: refuse" }[o.when_full] ?? o.when_full}</Mark>}</span><span>{bytes(o.bytes)}{o.max_bytes > 0 && " of " + bytes(o.max_bytes)}</span></p>
      {o.max_bytes > 0 && <Meter value={o.bytes} max={o.max_bytes} label={"Outbox of " + o.name} tone={share > 0.95 ? "bad" : share > 0.8 ? "warn" : "info"} />}
      <div class="thirds"><Ladder o={o} /><Forecast o={o} /><Budget o={o} /></div>
      <p class="quiet small">
        {[o.quarantined > 0 && count(o.quarantined) + " refused by it", o.shed_points > 0 && count(o.shed_points) + " given up for want of room", o.rebuilds > 0 && "connection rebuilt " + some(o.rebuilds, "time"), o.in_flight > 0 && count(o.in_flight) + " under way"].filter(Boolean).join(", ")}
        {o.quarantined > 0 && <> <a href={"#/quarantine?stage=sink&destination=" + encodeURIComponent(o.name)}>See what it refused</a></>}
        {o.head_moved_at && o.pending > 0 && <> Last moved on <Ago t={o.head_moved_at} />.</>}
      </p>
      {purge && <p class="more-line"><button type="button" onClick={purge}><Icon name="trash" size={16} /> Give up what waits</button></p>}
    </Card>
  );
}

export function Uplink({ name }: { name: string }) {
  const load = useLoad<{ outboxes: Outbox[] }>("api/v1/outboxes", 2000);
  const list = load.data?.outboxes ?? [];
  const pending = list.reduce((n, o) => n + o.pending, 0);
  const slowest = Math.max(0, ...list.map((o) => o.eta_seconds));
  const stuck = list.filter((o) => o.last_error && o.state !== "idle" && o.state !== "sending");
  const note = list.length === 0 ? " " : stuck.length > 0 ? stuck.map((o) => o.name).join(", ") + (stuck.length === 1 ? " does" : " do") + " not take anything at the moment; what waits is on disk."
    : pending === 0 ? "Everything has been delivered." : count(pending) + " on the way" + (slowest > 1 ? ", gone in " + duration(slowest) : "") + ".";
  const [purging, setPurging] = useState<Outbox>();
  const sorted = list.slice().sort((a, b) => Number(b.name === name) - Number(a.name === name));
  return (
    <>
      <Heading title="Uplink" note={note} />
      <Shown load={load} what="The uplink">{() => list.length === 0
        ? <Empty icon="uplink" title="Nothing is sent anywhere.">Add a destination under <code>uplink.destinations</code>, or a webhook, to the configuration. Alerts and history work without.</Empty>
        : sorted.map((o) => <One key={o.kind + o.name} o={o} open={o.name === name} purge={may("admin") && o.pending > 0 ? () => setPurging(o) : undefined} />)}</Shown>
      {purging && <Purge o={purging} unit={unitOf(purging)} close={() => setPurging(undefined)} done={load.again} />}
    </>
  );
}
