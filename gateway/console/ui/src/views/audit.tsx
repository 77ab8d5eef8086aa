// Who did what.
import { useState } from "preact/hooks";
import { withQuery } from "../api";
import { alertsChanged } from "../live";
import { useLoad } from "../load";
import { Card, Heading, Mark, Search, Table, When } from "../parts/bits";
import { Empty, NoMatch, Shown } from "../parts/states";
import { route } from "../route";
import { zoneName } from "../time";
import { use } from "../store";
import type { Audit as Book } from "../types";
import { count, some } from "../words";

export function Audit() {
  const [size, setSize] = useState(100);
  const load = useLoad<Book>(withQuery("api/v1/audit", { limit: size }), 10_000, use(alertsChanged));
  const search = (use(route).query.get("search") ?? "").toLowerCase();
  return (
    <>
      <Heading title="Audit" note={"What operators did, from the journal, newest first. Times are in " + zoneName() + "."} />
      <div class="bar"><Search what="the audit list" hint="Search name, operation, detail" /></div>
      <Card>
        <Shown load={load} what="The audit list">{(book) => {
          const shown = book.entries.filter((e) => !search || (e.author + " " + e.op + " " + e.detail).toLowerCase().includes(search));
          if (book.entries.length === 0) return <Empty icon="audit" title="Nobody has changed anything yet.">Acknowledgements, silences, reloads, replays and log-ins will stand here, with their author.</Empty>;
          if (shown.length === 0) return <NoMatch what="entry" />;
          return (
            <>
              <Table label="Operations" head={["When", "Who", "What", "Detail", "#Record"]}>{shown.map((e) => <tr key={e.lsn + e.time + e.op}><td><When t={e.time} /></td><td><strong>{e.author}</strong> {e.role && <Mark>{e.role}</Mark>}</td><td>{e.op.replaceAll("_", " ")}</td><td class="why">{e.detail}</td><td class="num quiet">{e.lsn > 0 ? count(e.lsn) : ""}</td></tr>)}</Table>
              <p class="more-line quiet">{some(book.total, "entry", "entries")}{book.next && size < 1000 && <button type="button" onClick={() => setSize(Math.min(1000, size * 3))}>Show more</button>}</p>
            </>
          );
        }}</Shown>
      </Card>
    </>
  );
}
