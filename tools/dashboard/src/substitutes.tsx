// Panels that Grafana has only inside its server: drawn here by hand, from the same
// frames, mappings and colours.
import React from 'react';

const FONT = { fontFamily: 'Inter, sans-serif', fontSize: 12, fill: '#ccccdc' };
const AXIS = 22;
const LEGEND = 24;

const clock = (ms: number) => new Date(ms).toTimeString().slice(0, 8);

function TimeAxis({ range, left, width, y }: any) {
  const [from, to] = [+range.from, +range.to];
  const ticks = [0.1, 0.3, 0.5, 0.7, 0.9];
  return (
    <>
      {ticks.map((t) => (
        <text key={t} x={left + t * width} y={y} textAnchor="middle" {...FONT}>
          {clock(from + t * (to - from))}
        </text>
      ))}
    </>
  );
}

// state-timeline: one row for each series, equal values merged.
export function StateTimeline({ series, timeRange, width, height, nameOf }: any) {
  const rows = series.map((frame: any) => ({
    name: nameOf(frame.fields[1], frame, series),
    times: frame.fields[0].values,
    values: frame.fields[1].values,
    display: frame.fields[1].display,
  }));
  const left = Math.min(220, 14 + 7 * Math.max(...rows.map((r: any) => r.name.length)));
  const [from, to] = [+timeRange.from, +timeRange.to];
  const wide = width - left - 8;
  const high = (height - AXIS - LEGEND) / rows.length;
  const x = (ms: number) => left + (Math.max(0, Math.min(1, (ms - from) / (to - from)))) * wide;
  const legend = new Map<string, string>();
  const boxes = rows.flatMap((row: any, n: number) => {
    const made = [];
    for (let i = 0; i < row.values.length; ) {
      let j = i + 1;
      while (j < row.values.length && row.values[j] === row.values[i] && row.times[j] - row.times[j - 1] < 15000) j++;
      const gap = j < row.values.length && row.times[j] - row.times[j - 1] >= 15000;
      const end = j < row.values.length && !gap ? row.times[j] : row.times[j - 1] + 1000;
      const shown = row.display(row.values[i]);
      legend.set(shown.text, shown.color);
      made.push(<rect key={n + '-' + i} x={x(row.times[i])} y={n * high + high * 0.08} height={high * 0.84}
        width={Math.max(1, x(end) - x(row.times[i]))} fill={shown.color} opacity={0.78} />);
      i = j;
    }
    return made;
  });
  return (
    <svg width={width} height={height}>
      {rows.map((row: any, n: number) => (
        <text key={n} x={left - 8} y={n * high + high / 2 + 4} textAnchor="end" {...FONT}>{row.name}</text>
      ))}
      {boxes}
      <TimeAxis range={timeRange} left={left} width={wide} y={height - LEGEND - 6} />
      {[...legend].map(([text, color], n) => (
        <g key={text} transform={`translate(${8 + n * 110}, ${height - 12})`}>
          <rect width={14} height={4} y={-2} fill={color} />
          <text x={20} y={4} {...FONT}>{text}</text>
        </g>
      ))}
    </svg>
  );
}

// heatmap of a Prometheus histogram: series by `le`, each with those below it.
export function Heatmap({ series, timeRange, width, height }: any) {
  const le = (frame: any) => (frame.fields[1].labels.le === '+Inf' ? Infinity : +frame.fields[1].labels.le);
  const rows = [...series].sort((a, b) => le(a) - le(b));
  const below = new Map<number, number>();
  const cells = rows.map((frame: any) => frame.fields[0].values.map((ms: number, i: number) => {
    const all = frame.fields[1].values[i];
    const own = all - (below.get(ms) ?? 0);
    below.set(ms, all);
    return [ms, Math.max(0, own)];
  }));
  const most = Math.max(...cells.flat().map(([, v]: any) => v), 1e-9);
  const left = 60;
  const [from, to] = [+timeRange.from, +timeRange.to];
  const wide = width - left - 8;
  const high = (height - AXIS) / rows.length;
  const step = cells[0].length > 1 ? cells[0][1][0] - cells[0][0][0] : 1000;
  const label = (v: number) => v === Infinity ? '+Inf' : v < 1e-3 ? `${+(v * 1e6).toFixed(0)} µs` : v < 1 ? `${+(v * 1e3).toFixed(1)} ms` : `${v} s`;
  return (
    <svg width={width} height={height}>
      {rows.map((frame: any, n: number) => n % 2 === 0 && (
        <text key={n} x={left - 6} y={height - AXIS - (n + 0.5) * high + 4} textAnchor="end" {...FONT}>{label(le(frame))}</text>
      ))}
      {cells.flatMap((row: any, n: number) => row.filter(([, v]: any) => v > 1e-6).map(([ms, v]: any) => (
        <rect key={n + '-' + ms} x={left + ((ms - from) / (to - from)) * wide} y={height - AXIS - (n + 1) * high} height={high - 1}
          width={Math.max(2, (step / (to - from)) * wide - 0.5)} fill="#ff9830" opacity={0.25 + 0.75 * Math.sqrt(v / most)} />
      )))}
      <TimeAxis range={timeRange} left={left} width={wide} y={height - 6} />
    </svg>
  );
}
