// What was refused, why, and its bytes; to be tried again or removed.
import { useState } from "preact/hooks";
import { send, withQuery } from "../api";
import { useLoad } from "../load";
import { Ago, Card, Choice, Heading, Mark, Progress, Search, When } from "../parts/bits";
import { Ask, Dialog, say } from "../parts/dialog";
import { Icon } from "../parts/icon";
import { Empty, Shown } from "../parts/states";
import { useJob } from "../job";
import { route, setQuery } from "../route";
import { may } from "../session";
import { use } from "../store";
import type { Quarantine as Kept, QuarantineGroup, QuarantineItem } from "../types";
import { bytes, count, plain, some, stageText } from "../words";

/** A payload's bytes; none where it is not base64. */
export function unpacked(payload: string): Uint8Array {
  try { return Uint8Array.from(atob(payload), (c) => c.charCodeAt(0)); } catch { return new Uint8Array(); }
}

const shownBytes = 64 * 1024;

/** Sixteen bytes a line: offset, hexadecimal, what can be printed. */
export function hex(b: Uint8Array): string {
  const lines: string[] = [];
  for (let i = 0; i < b.length; i += 16) {
    const part = [...b.subarray(i, i + 16)];
    const digits = part.map((x, j) => x.toString(16).padStart(2, "0") + (j === 7 ? " " : "")).join(" ");
    lines.push(i.toString(16).padStart(6, "0") + "  " + digits.padEnd(49) + "  " + part.map((x) => (x >= 32 && x < 127 ? String.fromCharCode(x) : ".")).join(""));
  }
  return lines.join("\n");
}

/** Bytes as text; what is no text shows as its replacement sign, control characters as their pictures. */
const text = (b: Uint8Array): string => new TextDecoder().decode(b).replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)));
const binary = (b: Uint8Array): boolean => b.some((x) => x < 9 || (x > 13 && x < 32)) || new TextDecoder().decode(b).includes("\ufffd");

function Item({ item: listed, close, again, remove }: { item: QuarantineItem; close: () => void; again?: (() => void) | undefined; remove?: (() => void) | undefined }) {
  // The list holds the first bytes only.
  const whole = useLoad<QuarantineItem>("api/v1/quarantine/" + encodeURIComponent(listed.id));
  const item = whole.data ?? listed;
  const all = unpacked(item.payload);
  const raw = all.subarray(0, shownBytes);
  const [as, setAs] = useState<"text" | "hex">(binary(raw) ? "hex" : "text");
  const points = item.points;
  return (
    <Dialog title="What was refused" close={close} wide>
      <dl class="facts">
        <div><dt>When</dt><dd><When t={item.time} /></dd></div>
        <div><dt>Where</dt><dd>{stageText(item.stage)}</dd></div>
        <div><dt>Reason</dt><dd>{plain(item.reason)}</dd></div>
        {item.source && <div><dt>Source</dt><dd>{item.source}</dd></div>}
        {item.count > 1 && <div><dt>Count</dt><dd>{count(item.count)}</dd></div>}
      </dl>
      {item.detail && <p class="notice warn"><Icon name="alert" size={16} /><span>{item.detail}</span></p>}
      {item.topic && <p><span class="quiet">Topic</span> <code class="break">{item.topic}</code></p>}
      {all.length > 0 && (
        <>
          <div class="bar"><Choice label="Show the payload as" value={as} choose={setAs} options={[["text", "Text"], ["hex", "Hex"]]} /><span class="quiet">{bytes(item.payload_bytes)}{item.payload_bytes > raw.length && ", the first " + bytes(raw.length) + " shown"}</span></div>
          <pre class="raw" tabIndex={0} aria-label="Payload">{as === "text" ? text(raw) : hex(raw)}</pre>
        </>
      )}
      {points && <><h3>Points, as they were sent</h3><pre class="raw" tabIndex={0} aria-label="Points">{points.slice(0, shownBytes)}</pre></>}
      {all.length === 0 && !points && <p class="quiet">Its bytes are not kept.</p>}
      <footer>
        {remove && <button type="button" class="danger" onClick={remove}><Icon name="trash" size={16} /> Delete</button>}
        {again && <button type="button" class="primary" onClick={again}><Icon name="retry" size={16} /> Replay</button>}
      </footer>
    </Dialog>
  );
}

interface Target { ids?: string[]; filter?: Record<string, string>; what: string; sink: boolean }
interface Replayed { replayed: number; again: number; failed: number }

function Replay({ target, close, done }: { target: Target; close: () => void; done: () => void }) {
  const job = useJob<Replayed>((j) => {
    if (j.state === "failed") return;
    const r = j.result;
    say(r ? count(r.replayed) + " replayed" + (r.again ? ", " + count(r.again) + " refused again" : "") + (r.failed ? ", " + count(r.failed) + " failed" : "") + "." : "Replayed.", r && (r.again || r.failed) ? "warn" : "good");
    done();
    close();
  });
  const [type, setType] = useState("");
  const failed = job.error || (job.job?.state === "failed" ? job.job.error || "It failed." : "");
  return (
    <Dialog title={"Replay " + target.what + "?"} close={close}>
      <p>{target.sink ? "The points are put into the destination's outbox again." : "The messages go through the gateway again, under the sources and limits configured now."} What is refused again stays in quarantine.</p>
      {target.sink && <label class="field">Field type<select value={type} onChange={(e) => setType(e.currentTarget.value)} disabled={job.busy}><option value="">as it was</option>{["float", "int", "string", "bool"].map((t) => <option key={t} value={t}>as {t}</option>)}</select></label>}
      {failed && <p class="notice bad" role="alert"><Icon name="alert" size={16} /><span>{failed}</span></p>}
      {job.busy && <Progress done={job.job?.done ?? 0} total={job.job?.total ?? 0} label={job.job ? count(job.job.done) + " of " + count(job.job.total) + " " + job.job.unit : "Starting"} />}
      <footer>
        <button type="button" onClick={job.busy && job.job ? job.cancel : close}>{job.busy && job.job ? "Stop" : "Cancel"}</button>
        <button type="button" class="primary" disabled={job.busy} onClick={() => job.start("api/v1/quarantine/replay", { ids: target.ids ?? [], ...(target.filter && { filter: target.filter }), ...(type && { type }) })}>Replay</button>
      </footer>
    </Dialog>
  );
}

const groupFilter = (g: QuarantineGroup): Record<string, string> => Object.fromEntries(Object.entries({ stage: g.stage, reason: g.reason, source: g.source }).filter(([, v]) => v !== ""));

function Groups({ k, act }: { k: Kept; act: (what: "replay" | "delete", t: Target) => void }) {
  const q = use(route).query;
  const chosen = (g: QuarantineGroup) => q.get("stage") === g.stage && q.get("reason") === g.reason && (q.get("source") ?? "") === g.source;
  return (
    <Card title="Reasons" id="reasons" extra={<span class="quiet">{bytes(k.bytes)}{k.max_bytes > 0 && " of " + bytes(k.max_bytes)} kept</span>}>
      <ul class="list groups">
        {k.groups.map((g) => {
          const target: Target = { filter: groupFilter(g), what: some(g.items, "item"), sink: g.stage === "sink" };
          return (
            <li key={g.stage + "|" + g.reason + "|" + g.source} class={"plain-row " + (chosen(g) ? "picked" : "")}>
              <b class="num big-count">{count(g.items)}</b>
              <span class="grow"><strong>{plain(g.reason)}</strong> <Mark>{stageText(g.stage)}</Mark> {g.source && <Mark>{g.source}</Mark>}<br /><span class="summary">{g.example}</span></span>
              <span class="end quiet">last <Ago t={g.newest} /></span>
              <span class="actions">
                <button type="button" aria-pressed={chosen(g)} onClick={() => setQuery(chosen(g) ? { stage: "", reason: "", source: "" } : { stage: g.stage, reason: g.reason, source: g.source })}>{chosen(g) ? "Show all" : "Show"}</button>
                {may("operator") && <button type="button" aria-label={"Replay all: " + g.reason} onClick={() => act("replay", target)}>Replay</button>}
                {may("admin") && <button type="button" aria-label={"Delete all: " + g.reason} onClick={() => act("delete", target)}>Delete</button>}
              </span>
            </li>
          );
        })}
      </ul>
    </Card>
  );
}

export function Quarantine() {
  const q = use(route).query;
  const names = ["stage", "reason", "source", "destination", "search"] as const;
  const query = Object.fromEntries(names.map((n) => [n, q.get(n) ?? ""]));
  const [size, setSize] = useState(100);
  const load = useLoad<Kept>(withQuery("api/v1/quarantine", { ...query, limit: size }), 10_000);
  const [open, setOpen] = useState<QuarantineItem>();
  const [target, setTarget] = useState<{ what: "replay" | "delete"; t: Target }>();
  const act = (what: "replay" | "delete", t: Target) => { setOpen(undefined); setTarget({ what, t }); };
  const filtered = names.some((n) => query[n]);
  const single = (i: QuarantineItem): Target => ({ ids: [i.id], what: "this item", sink: i.stage === "sink" });
  return (
    <>
      <Heading title="Quarantine" note={load.data ? (load.data.groups.length === 0 ? "Nothing was refused." : "Refused, and kept with the reason; nothing here is counted as delivered.") : " "} />
      <Shown load={load} what="The quarantine">{(k) => k.groups.length === 0 && !filtered
        ? <Empty title="Nothing is in quarantine.">What cannot be read, bears an implausible time or is refused by a destination would stand here, with its bytes.</Empty>
        : (
          <>
            <Groups k={k} act={act} />
            <div class="bar">
              <Search what="the quarantine" hint="Search topic or detail" />
              {filtered && <button type="button" onClick={() => setQuery(Object.fromEntries(names.map((n) => [n, ""])))}>Show all</button>}
              <span class="quiet">{some(k.total, "item")}, newest first</span>
            </div>
            <Card cls="flush">
              {k.items.length === 0 ? <Empty icon="search" title="Nothing matches." /> : (
                <ul class="list items">
                  {k.items.map((i) => (
                    <li key={i.id}>
                      <button type="button" onClick={() => setOpen(i)}>
                        <span class="when quiet"><When t={i.time} /></span>
                        <span class="grow"><strong>{plain(i.reason)}</strong> <code class="break">{i.topic || i.source}</code><br /><span class="summary">{i.detail}</span></span>
                        <span class="end quiet">{i.payload_bytes ? bytes(i.payload_bytes) : i.count > 1 ? count(i.count) + " points" : ""}</span>
                      </button>
                    </li>
                  ))}
                </ul>
              )}
              {k.next && <p class="more-line"><button type="button" onClick={() => setSize(Math.min(1000, size + 300))} disabled={size >= 1000}>{size >= 1000 ? "Narrow the search to see older ones" : "Show more"}</button></p>}
            </Card>
          </>
        )}</Shown>
      {open && <Item item={open} close={() => setOpen(undefined)} again={may("operator") ? () => act("replay", single(open)) : undefined} remove={may("admin") ? () => act("delete", single(open)) : undefined} />}
      {target?.what === "replay" && <Replay target={target.t} close={() => setTarget(undefined)} done={load.again} />}
      {target?.what === "delete" && (
        <Ask title={"Delete " + target.t.what + "?"} action={"Delete " + target.t.what} danger close={() => setTarget(undefined)} act={async () => {
          const r = await send<{ removed: number }>("POST", "api/v1/quarantine/delete", target.t.ids ? { ids: target.t.ids } : { filter: target.t.filter });
          load.again();
          return some(r.removed, "item") + " deleted.";
        }}><p>The bytes are gone for good. The ledger keeps the count.</p></Ask>
      )}
    </>
  );
}
