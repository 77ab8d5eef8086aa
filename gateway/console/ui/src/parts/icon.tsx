// Pictograms, drawn on a grid of 24. They never stand alone: a word is beside each, hence hidden from screen readers.
const paths: Record<string, string> = {
  ok: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M8 12.3l2.8 2.8L16.2 9.4",
  alert: "M12 3.6 21.6 20H2.4ZM12 10v4.4M12 17.1v.1",
  stop: "M8.3 3h7.4L21 8.3v7.4L15.7 21H8.3L3 15.7V8.3ZM12 7.8v5M12 16.1v.1",
  info: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M12 11v5.2M12 7.8v.1",
  clock: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M12 7v5.2l3.3 2",
  unknown: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M9.6 9.5a2.5 2.5 0 1 1 3.6 2.3c-.8.4-1.2.9-1.2 1.9M12 16.6v.1",
  silent: "M3 12h3l2-5 3 10 1.6-5M15.5 9.5l5 5M20.5 9.5l-5 5",
  unplugged: "M9 4 7.5 5.5M3.5 3.5l17 17M13.5 17.5 12 19a4.2 4.2 0 0 1-6-6l1.5-1.5M10.5 6.5 12 5a4.2 4.2 0 0 1 6 6l-1.5 1.5",
  send: "M12 20V5M5.5 11.5 12 5l6.5 6.5",
  retry: "M20 12a8 8 0 1 1-2.5-5.8M20.5 3v4.5H16",
  overview: "M4 4h7v9H4ZM13 4h7v5h-7ZM13 11h7v9h-7ZM4 15h7v5H4Z",
  bell: "M6 16.5V11a6 6 0 0 1 12 0v5.5l1.5 1.5h-15ZM10 20.5h4",
  mute: "M6 16.5V11c0-1 .2-1.9.7-2.7M9 5.8A6 6 0 0 1 18 11v3.5M19 18H4.5L6 16.5M10 20.5h4M4 4l16 16",
  device: "M6 6h12v12H6ZM9.5 9.5h5v5h-5ZM9 3v3M15 3v3M9 18v3M15 18v3M3 9h3M3 15h3M18 9h3M18 15h3",
  uplink: "M7 17.5a4 4 0 0 1-.6-7.95 5.5 5.5 0 0 1 10.7-.5A4.25 4.25 0 0 1 17 17.5M12 20v-8M9 14.5l3-3 3 3",
  quarantine: "M4 8h16v12H4ZM3 4h18v4H3ZM9.5 12h5",
  rules: "M4 6.5l1.5 1.5L8 5M4 12.5 5.5 14 8 11M4 18.5 5.5 20 8 17M11.5 6.5H20M11.5 12.5H20M11.5 18.5H20",
  ledger: "M12 4v16M7 20h10M5 7h14M5 7l-3 7a3 3 0 0 0 6 0ZM19 7l-3 7a3 3 0 0 0 6 0Z",
  audit: "M6 3h9l4 4v14H6ZM15 3v4h4M9.5 12h6M9.5 16h6",
  demo: "M9.5 3h5M10.5 3v6L5 18.5a1.7 1.7 0 0 0 1.5 2.5h11a1.7 1.7 0 0 0 1.5-2.5L13.5 9V3M7.5 15h9",
  more: "M5 12h.1M12 12h.1M19 12h.1",
  search: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13M15.3 15.3 20.5 20.5",
  close: "M6 6l12 12M18 6 6 18",
  right: "M9 5l7 7-7 7",
  left: "M15 5l-7 7 7 7",
  down: "M5 9l7 7 7-7",
  half: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M12 3v18M15 5v14M18 8v8",
  keys: "M3 6h18v12H3ZM7 10h.1M12 10h.1M17 10h.1M8 14h8",
  user: "M12 4a4 4 0 1 0 0 8 4 4 0 0 0 0-8M4.5 20.5c.8-4 4-5.5 7.5-5.5s6.7 1.5 7.5 5.5",
  play: "M7 4.5v15l12-7.5Z",
  trash: "M5 7h14M9 7V4h6v3M7 7l1 13h8l1-13M10.5 11v5.5M13.5 11v5.5",
  token: "M8 12.5a4 4 0 1 0 0 7.9 4 4 0 0 0 0-7.9M10.8 13.6 20 4.4M16.5 8l3 3M13.5 11l2 2",
  check: "M5 12.5 10 17.5 19 7",
};

export function Icon({ name, size = 18 }: { name: string; size?: number }) {
  return (
    <svg class="icon" width={size} height={size} viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width={name === "more" ? 3.5 : 1.8}
      stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">
      <path d={paths[name] ?? paths["unknown"]} />
    </svg>
  );
}
