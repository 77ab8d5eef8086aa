// A line without axes, for a trend beside a figure.
const width = 240, height = 44;

/** points: equally spaced, null is a gap; the newest is last. slots: how many fit in the width. */
export function Spark({ points, slots, label }: { points: (number | null)[]; slots: number; label: string }) {
  const max = Math.max(1, ...points.map((p) => p ?? 0)) * 1.08;
  const x = (i: number) => ((slots - points.length + i) / Math.max(1, slots - 1)) * width;
  const y = (v: number) => height - 2 - (v / max) * (height - 6);
  let d = "", area = "", open = -1;
  points.forEach((p, i) => {
    if (p === null) {
      if (open >= 0) area += `L${x(i - 1).toFixed(1)} ${height}Z`;
      open = -1;
      return;
    }
    const at = `${x(i).toFixed(1)} ${y(p).toFixed(1)}`;
    d += (open < 0 ? "M" : "L") + at;
    area += open < 0 ? `M${x(i).toFixed(1)} ${height}L${at}` : "L" + at;
    open = i;
  });
  if (open >= 0) area += `L${x(open).toFixed(1)} ${height}Z`;
  return (
    <svg class="spark" viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" role="img" aria-label={label}>
      <path class="area" d={area} /><path class="line" d={d} vector-effect="non-scaling-stroke" />
    </svg>
  );
}
