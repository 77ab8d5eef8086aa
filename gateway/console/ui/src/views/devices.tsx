// Every device, silent ones first.
import { useEffect, useRef, useState } from "preact/hooks";
import { get, withQuery } from "../api";
import { link } from "../live";
import { useLoad } from "../load";
import { Ago, Choice, Heading, Mark, Search, State } from "../parts/bits";
import { Rows } from "../parts/rows";
import { Empty, Shown } from "../parts/states";
import { route, setQuery, to } from "../route";
import { use } from "../store";
import type { Device, DeviceList } from "../types";
import { count, deviceState, labelText, perMinute, some } from "../words";

const page = 500;

/** Whether the window is narrow, as the style sheet has it. */
export function useNarrow(): boolean {
  const query = "(max-width: 760px)";
  const [narrow, set] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const m = matchMedia(query);
    const on = () => set(m.matches);
    m.addEventListener("change", on);
    return () => m.removeEventListener("change", on);
  }, []);
  return narrow;
}

function Row({ d }: { d: Device }) {
  return (
    <a class="device-row" href={to("devices", d.id)}>
      <State {...deviceState(d.state)} />
      <span class="name"><strong>{d.name}</strong>{d.alerts > 0 && <Mark tone="bad" icon="alert">{some(d.alerts, "alert")}</Mark>}</span>
      <span class="where quiet">{labelText(d.labels, "device", "gateway")}</span>
      <span class="seen"><Ago t={d.last_seen} /></span>
      <span class="rate">{perMinute(d.rate_per_minute)}</span>
      <span class="count-of">{count(d.series)}<span class="unseen"> metrics</span></span>
    </a>
  );
}

/** The first page, kept fresh, and further ones as somebody scrolls; those stay as they were read. */
function List({ first, path }: { first: DeviceList; path: string }) {
  const [rest, setRest] = useState<{ path: string; devices: Device[]; next: string | undefined }>({ path, devices: [], next: undefined });
  const busy = useRef(false);
  const narrow = useNarrow();
  const mine = rest.path === path ? rest : { path, devices: [], next: undefined };
  const next = mine.next ?? first.next;
  const more = () => {
    if (!next || busy.current || link.value === "lost") return;
    busy.current = true;
    get<DeviceList>(path + "&cursor=" + encodeURIComponent(next)).then(
      (l) => setRest({ path, devices: [...mine.devices, ...l.devices], next: l.next }), () => undefined,
    ).finally(() => { busy.current = false; });
  };
  const seen = new Set<string>();
  const items = [...first.devices, ...mine.devices].filter((d) => !seen.has(d.id) && seen.add(d.id));
  return (
    <div class="card flush">
      <div class="device-row head" aria-hidden="true"><span>State</span><span>Device</span><span>Labels</span><span>Last heard</span><span>Rate</span><span>Metrics</span></div>
      <Rows items={items} height={narrow ? 68 : 44} keyOf={(d) => d.id} row={(d) => <Row d={d} />} label="Devices" end={more} />
    </div>
  );
}

const sorts = [["silent", "Silent first"], ["name", "By name"], ["last_seen", "Last heard"]] as const;

export function Devices() {
  const q = use(route).query;
  const search = q.get("search") ?? "", state = q.get("state") ?? "", sort = q.get("sort") ?? "", labels = q.getAll("label");
  const path = withQuery("api/v1/devices", { limit: page, search, state, sort, label: labels });
  const load = useLoad<DeviceList>(path, 5000);
  const last = useRef<DeviceList | undefined>(undefined);
  if (load.data) last.current = load.data;
  const list = load.data ?? last.current; // while the next answer is under way, what was there stays
  const filtered = search !== "" || state !== "" || labels.length > 0;
  const clear = () => setQuery({ search: "", state: "", label: [] });
  const n = (s: keyof DeviceList["states"]) => (list ? <b>{count(list.states[s] ?? 0)}</b> : null);
  return (
    <>
      <Heading title="Devices" note={!list ? " " : filtered ? some(list.total, "device matches", "devices match") : some(list.total, "device")} />
      <div class="bar">
        <Search what="devices" hint="Search name or label" />
        <Choice label="State" value={state} choose={(v) => setQuery({ state: v })} options={[
          ["", <>All</>], ["silent", <>Silent{n("silent")}</>], ["offline", <>Offline{n("offline")}</>], ["online", <>Online{n("online")}</>], ...((list?.states.unknown ?? 0) > 0 ? [["unknown", <>Unknown{n("unknown")}</>] as const] : []),
        ]} />
        <LabelFilter labels={labels} list={list} />
        <select aria-label="Order" value={sort || "silent"} onChange={(e) => setQuery({ sort: e.currentTarget.value === "silent" ? "" : e.currentTarget.value })}>
          {sorts.map(([v, text]) => <option key={v} value={v}>{text}</option>)}
        </select>
      </div>
      <Shown load={list && !load.error ? { ...load, data: list } : load} what="Devices" rows={8}>{(l) => l.devices.length > 0 ? <List first={l} path={path} />
        : filtered ? <Empty icon="search" title="No device matches."><button type="button" onClick={clear}>Show all devices</button></Empty>
          : <Empty icon="device" title="No device has sent anything yet.">Point one at this gateway's MQTT listener, with a topic that a source of the configuration matches.</Empty>}</Shown>
    </>
  );
}

/** The label filters in force, and a field to add one; values are offered from the devices in sight. */
function LabelFilter({ labels, list }: { labels: string[]; list: DeviceList | undefined }) {
  const known = new Map<string, number>();
  for (const d of list?.devices ?? []) for (const [k, v] of Object.entries(d.labels)) if (k !== "device") known.set(k + ":" + v, (known.get(k + ":" + v) ?? 0) + 1);
  const offered = [...known].filter(([l, n]) => !labels.includes(l) && n < (list?.devices.length ?? 0)).sort((a, b) => b[1] - a[1]).slice(0, 60).map(([l]) => l).sort();
  return (
    <>
      {labels.map((l) => (
        <button type="button" class="chip on" key={l} aria-label={"Leave out the filter " + l} onClick={() => setQuery({ label: labels.filter((x) => x !== l) })}><i>{l.split(":")[0]}</i>{l.split(":").slice(1).join(":")}<span aria-hidden="true"> &times;</span></button>
      ))}
      {offered.length > 0 && (
        <select aria-label="Only devices with a label" value="" onChange={(e) => { const v = e.currentTarget.value; e.currentTarget.value = ""; setQuery({ label: [...labels, v] }); }}>
          <option value="">Label</option>
          {offered.map((l) => <option key={l} value={l}>{l.replace(":", " = ")}</option>)}
        </select>
      )}
    </>
  );
}
