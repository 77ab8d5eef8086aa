// A long list of which only the rows in sight are in the document. It scrolls with the page; arrow keys, Home and End go from row to row.
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

const beyond = 8; // rows kept above and below what is in sight

interface Props<T> {
  items: readonly T[];
  height: number; // of a row, px; all are alike
  keyOf: (item: T) => string;
  row: (item: T) => ComponentChildren; // has one link or button that takes the focus
  label: string;
  end?: () => void; // the last rows came into sight
}

export function Rows<T>({ items, height, keyOf, row, label, end }: Props<T>) {
  const box = useRef<HTMLUListElement>(null);
  const [[first, last], setRange] = useState<[number, number]>([0, 30]);
  const wanted = useRef(-1); // row to focus once it is there
  const measure = () => {
    const top = box.current?.getBoundingClientRect().top ?? 0;
    const from = Math.max(0, Math.floor(-top / height) - beyond);
    const until = Math.min(items.length, Math.ceil((innerHeight - top) / height) + beyond);
    setRange((old) => (old[0] === from && old[1] === until ? old : [from, until]));
    if (end && until >= items.length - beyond) end();
  };
  useLayoutEffect(measure, [items.length, height]);
  useEffect(() => {
    let frame = 0;
    const soon = () => { frame ||= requestAnimationFrame(() => { frame = 0; measure(); }); };
    addEventListener("scroll", soon, { passive: true });
    addEventListener("resize", soon);
    return () => { cancelAnimationFrame(frame); removeEventListener("scroll", soon); removeEventListener("resize", soon); };
  });
  const focus = (i: number): boolean => {
    const el = box.current?.querySelector<HTMLElement>(`[data-row="${i}"] a, [data-row="${i}"] button`);
    el?.focus();
    el?.scrollIntoView({ block: "nearest" });
    return !!el;
  };
  useLayoutEffect(() => { if (wanted.current >= 0 && focus(wanted.current)) wanted.current = -1; });
  const keys = (e: KeyboardEvent) => {
    const at = Number((e.target as HTMLElement).closest<HTMLElement>("[data-row]")?.dataset["row"] ?? -1);
    const step: Record<string, number> = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1, PageDown: at + 10, PageUp: at - 10 };
    const next = step[e.key];
    if (at < 0 || next === undefined || e.altKey || e.ctrlKey || e.metaKey) return;
    e.preventDefault();
    const i = Math.max(0, Math.min(items.length - 1, next));
    if (focus(i)) return;
    wanted.current = i;
    const top = (box.current?.getBoundingClientRect().top ?? 0) + scrollY;
    scrollTo({ top: top + i * height - innerHeight / 2 });
  };
  const shown = items.slice(first, Math.max(last, first));
  return (
    <ul class="rows" ref={box} aria-label={label} onKeyDown={keys} style={{ height: items.length * height + "px" }}>
      {shown.map((item, i) => (
        <li key={keyOf(item)} data-row={first + i} aria-setsize={items.length} aria-posinset={first + i + 1}
          style={{ top: (first + i) * height + "px", height: height + "px" }}>{row(item)}</li>
      ))}
    </ul>
  );
}
