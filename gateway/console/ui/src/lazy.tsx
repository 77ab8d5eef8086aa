// Views that are fetched when somebody first opens them, so that the first page does not wait for them.
import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Icon } from "./parts/icon";
import { moved } from "./route";

/** A component that load fetches once. quiet: nothing stands in its place until it is there. */
export function lazy<P extends object>(load: () => Promise<ComponentType<P>>, quiet = false): ComponentType<P> {
  let there: ComponentType<P> | undefined;
  return function Lazy(props: P) {
    const [failed, setFailed] = useState(false);
    const [, redraw] = useState(0);
    const late = useState(!there)[0];
    useEffect(() => {
      let gone = false;
      if (!there) load().then((c) => { there = c; if (!gone) redraw(1); }, () => { if (!gone) setFailed(true); });
      return () => { gone = true; };
    }, []);
    // Whoever went here by a key or a link reads on at the title, as on views that are there at once.
    useEffect(() => { if (there && late && !quiet && moved) document.getElementById("title")?.focus({ preventScroll: true }); }, [there]);
    if (there) {
      const There = there;
      return <There {...props} />;
    }
    if (quiet) return null;
    if (!failed) return <div class="loading" role="status" aria-label="Loading"><div class="bone" /><div class="bone" /></div>;
    return (
      <div class="empty" role="alert">
        <Icon name="unplugged" size={28} />
        <p><strong>This view could not be fetched.</strong> The gateway does not answer, or was updated since the page was opened.</p>
        <button type="button" class="primary" onClick={() => location.reload()}>Open the page again</button>
      </div>
    );
  };
}
