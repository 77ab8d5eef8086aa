// Where every reading went.
import { withQuery } from "../api";
import { useLoad } from "../load";
import { Card, Choice, Heading, State, Table, When } from "../parts/bits";
import { Empty, Shown } from "../parts/states";
import { route, setQuery } from "../route";
import { zoneName } from "../time";
import { use } from "../store";
import type { Ledger as Book, LedgerSource } from "../types";
import { count, some, type Tone } from "../words";

const columns: [keyof LedgerSource, string, Tone][] = [["aggregated", "Taken", "good"], ["duplicate", "Duplicate", "quiet"], ["late", "Late", "warn"], ["quarantined", "Quarantined", "bad"]];

const share = (n: number, of: number): string => (of > 0 && n > 0 ? (n / of < 0.001 ? "< 0.1" : ((n / of) * 100).toFixed(1)) + " %" : "");

function Split({ s }: { s: LedgerSource }) {
  if (s.received === 0) return null;
  return (
    <div class="split" aria-hidden="true">
      {columns.map(([k, , tone]) => Number(s[k]) > 0 && <div key={k} class={tone} style={{ flexGrow: String(Math.max(Number(s[k]), s.received * 0.004)) }} />)}
    </div>
  );
}

function Sources({ list }: { list: LedgerSource[] }) {
  if (list.length === 0) return <Empty icon="ledger" title="No source is configured.">Messages are routed but not counted. Add a source to the configuration.</Empty>;
  return (
    <Table label="Readings by source" head={["Source", "#Messages", "#Readings", ...columns.map(([, t, tone]) => <><span class={"swatch " + tone} /> {t}</>), "#Not accounted for"]}>
          {list.flatMap((s) => [
            <tr key={s.source}>
              <th scope="row">{s.source}</th><td class="num">{count(s.messages)}</td><td class="num"><b>{count(s.received)}</b></td>
              {columns.map(([k]) => <td class="num" key={k}>{count(Number(s[k]))} <span class="share">{share(Number(s[k]), s.received)}</span></td>)}
              <td class={"num " + (s.imbalance ? "bad" : "good")}><b>{count(s.imbalance)}</b></td>
            </tr>,
            <tr key={s.source + "|split"} class="split-row"><td colSpan={8}><Split s={s} /></td></tr>,
          ])}
    </Table>
  );
}

function Destinations({ book }: { book: Book }) {
  if (book.destinations.length === 0) return <Empty icon="uplink" title="Nothing is sent anywhere.">Without a destination readings end in the local history.</Empty>;
  return (
    <Table label="Points by destination" head={["Destination", "#Points", "#Delivered", "#Waiting", "#Merged", "#Given up", "#Refused", "#Not accounted for"]}>
      {book.destinations.map((d) => (
          <tr key={d.name}><th scope="row">{d.name}</th><td class="num"><b>{count(d.points)}</b></td><td class="num">{count(d.delivered)}</td><td class="num">{count(d.pending)}</td><td class="num">{count(d.degraded)}</td>
            <td class={"num " + (d.shed ? "bad" : "")}>{count(d.shed)}</td><td class={"num " + (d.rejected ? "warn" : "")}>{count(d.rejected)}</td><td class={"num " + (d.imbalance ? "bad" : "good")}><b>{count(d.imbalance)}</b></td></tr>
        ))}
    </Table>
  );
}

function Losses({ book }: { book: Book }) {
  if (book.losses.length === 0) return <Empty title="Nothing was lost.">Every acknowledged reading was delivered, waits on disk, or stands above with its reason.</Empty>;
  return (
    <Table label="Losses" head={["From", "To", "Source", "Destination", "Reason", "#Count"]}>
      {book.losses.map((l, i) => <tr key={i}><td><When t={l.time_from} /></td><td><When t={l.time_to} /></td><td>{l.source || "\u2013"}</td><td>{l.destination || "\u2013"}</td><td>{l.reason.replaceAll("_", " ")}</td><td class="num">{count(l.count)}</td></tr>)}
    </Table>
  );
}

const spans = [["", "All"], ["1h", "1h"], ["24h", "24h"], ["168h", "7d"]] as const;

export function Ledger() {
  const since = use(route).query.get("since") ?? "";
  const load = useLoad<Book>(withQuery("api/v1/ledger", { since }), 5000);
  const b = load.data;
  return (
    <>
      <Heading title="Ledger" note="Where every reading went. Taken, duplicate, late and quarantined add up to what was received.">
        <Choice label="Since" value={since} choose={(v) => setQuery({ since: v })} options={spans} />
      </Heading>
      <Shown load={load} what="The ledger">{(book) => (
        <>
          <section class={"verdict slim " + (book.imbalance ? "bad" : "good")}>
            <State {...(book.imbalance ? { word: "does not balance", tone: "bad", icon: "stop" } : { word: "balances", tone: "good", icon: "ok" })} />
            <p>{book.imbalance ? count(book.imbalance) + " readings are not accounted for. That is a bug: please report it with the gateway's log." : "Every reading is accounted for: " + some(book.sources.reduce((n, s) => n + s.received, 0), "reading") + " received, 0 lost without a reason."}</p>
          </section>
          <Card title="By source, in readings" id="by-source"><Sources list={book.sources} /></Card>
          <Card title="By destination, in points" id="by-destination"><Destinations book={book} /></Card>
          <Card title="Losses" id="losses" extra={<span class="quiet">{b?.since ? <>since <When t={b.since} />, </> : ""}{zoneName()}</span>}><Losses book={book} /></Card>
        </>
      )}</Shown>
    </>
  );
}
