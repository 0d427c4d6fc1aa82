// Figures and times as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const finer = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });

export const count = (value) => (value === null || value === undefined ? "–" : whole.format(value));

export const counted = (value, one, many) => `${count(value)} ${value === 1 ? one : many}`;

export function rate(value) {
  if (value === 0) return "0/s";
  return `${(value < 1 ? finer : value < 100 ? fine : whole).format(value)}/s`;
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${(unit === 0 || value >= 100 ? whole : fine).format(value)} ${units[unit]}`;
}

export function duration(seconds) {
  if (seconds < 0.0005) return "0 s";
  if (seconds < 1) return `${whole.format(seconds * 1000)} ms`;
  if (seconds < 10) return `${fine.format(seconds)} s`;
  const parts = [
    ["d", 86400],
    ["h", 3600],
    ["min", 60],
    ["s", 1],
  ];
  let left = Math.round(seconds);
  const shown = [];
  for (const [unit, length] of parts) {
    const many = Math.floor(left / length);
    left -= many * length;
    if (many > 0 || shown.length > 0) shown.push(`${many} ${unit}`);
  }
  return shown.slice(0, 2).join(" ");
}

export function percent(part, all) {
  if (all === 0) return "–";
  const share = (100 * part) / all;
  // What is nearly all is not all.
  if (share > 99.9 && part < all) return "> 99.9 %";
  if (share > 0 && share < 0.1) return "< 0.1 %";
  return `${fine.format(share)} %`;
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const moment = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

export const timeOfDay = (date) => clock.format(date);

/** The time of today, or the date with it. */
export function when(iso) {
  const date = new Date(iso);
  return date.toDateString() === new Date().toDateString() ? clock.format(date) : moment.format(date);
}
