// What a view shows when it has nothing to show: loading, failed, empty. Each says what to do next.
import type { ComponentChildren } from "preact";
import type { Loaded } from "../load";
import { link } from "../live";
import { use } from "../store";
import { setQuery } from "../route";
import { Icon } from "./icon";

export function Empty({ icon = "ok", title, children }: { icon?: string; title: string; children?: ComponentChildren }) {
  return <div class="empty"><Icon name={icon} size={28} /><p><strong>{title}</strong></p>{children && <p class="quiet">{children}</p>}</div>;
}

/** When a search finds nothing. all is what the way back says. */
export function NoMatch({ what, name = "search", all = "Show all" }: { what: string; name?: string; all?: string }) {
  return <Empty icon="search" title={"No " + what + " matches."}><button type="button" onClick={() => setQuery({ [name]: "" })}>{all}</button></Empty>;
}

function Loading({ rows }: { rows: number }) {
  return (
    <div class="loading" role="status" aria-label="Loading">
      {Array.from({ length: rows }, (_, i) => <div class="bone" key={i} />)}
    </div>
  );
}

function advice(status: number): string {
  switch (status) {
    case 0: return "The page keeps trying. Check that the gateway runs and that this computer reaches it.";
    case 403: return "Ask an administrator for the right, or log in as somebody who has it.";
    case 404: return "This gateway does not have it: it is switched off in its configuration, or is gone.";
    default: return "Try again; if it stays, the gateway's log says more.";
  }
}

export function Failed({ load, what }: { load: Loaded<unknown>; what: string }) {
  const e = load.error!;
  return (
    <div class="empty" role="alert">
      <Icon name={e.status === 0 ? "unplugged" : "alert"} size={28} />
      <p><strong>{what} cannot be shown.</strong> {e.message}</p>
      <p class="quiet">{advice(e.status)}</p>
      <button type="button" onClick={load.again}>Try again</button>
    </div>
  );
}

/** Shows what was loaded, or why it is not there. Old data stays, with a note, when asking again failed. */
export function Shown<T>({ load, what, rows = 4, children }: { load: Loaded<T>; what: string; rows?: number; children: (data: T) => ComponentChildren }) {
  const connection = use(link);
  if (load.data !== undefined) {
    return (
      <>
        {load.error && connection !== "lost" && (
          <p class="notice warn" role="status"><Icon name="alert" size={16} /><span>These figures are old: {load.error.message}</span><button type="button" onClick={load.again}>Try again</button></p>
        )}
        {children(load.data)}
      </>
    );
  }
  return load.error ? <Failed load={load} what={what} /> : <Loading rows={rows} />;
}
