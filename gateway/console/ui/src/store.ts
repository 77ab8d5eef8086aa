// A value that components follow.
import { useLayoutEffect, useState } from "preact/hooks";

export class Signal<T> {
  private followers = new Set<() => void>();
  constructor(private now: T) {}
  get value(): T { return this.now; }
  set value(v: T) {
    if (v === this.now) return;
    this.now = v;
    for (const f of [...this.followers]) f();
  }
  /** Calls f after each change, until the function it returns is called. */
  follow(f: () => void): () => void {
    this.followers.add(f);
    return () => { this.followers.delete(f); };
  }
}

export const signal = <T>(v: T): Signal<T> => new Signal(v);

/** The value; the component that asks is drawn again when it changes. */
export function use<T>(s: Signal<T>): T {
  const [, redraw] = useState(0);
  const drawn = s.value;
  useLayoutEffect(() => {
    const again = () => redraw((n) => n + 1);
    if (s.value !== drawn) again(); // it changed between drawing and here
    return s.follow(again);
  }, [s]);
  return drawn;
}
