// Prometheus as a Grafana data source: as much of it as the dashboard asks for.
import { DataSourceApi, toDataFrame, FieldType, LoadingState, rangeUtil } from '@grafana/data';

export const errors: string[] = ((window as any).__errors = []);
export const queries: any[] = ((window as any).__queries = []);

const SCRAPE_S = 1;
const QUERY = /^label_values\((?:(.+),\s*)?(\w+)\)$/;

const ask = async (path: string) => {
  const answer = await (await fetch(`/prom/api/v1/${path}`)).json();
  if (answer.status !== 'success') {
    errors.push(`${path}: ${answer.error}`);
    throw new Error(answer.error);
  }
  return answer.data;
};

export class Prometheus extends DataSourceApi<any> {
  fill: (text: string, scoped: any) => string = (text) => text;

  async query(request: any): Promise<any> {
    const found = await Promise.all(
      request.targets.map((target: any) => this.frames(target, request))
    );
    return { data: found.flat(), state: LoadingState.Done };
  }

  private async frames(target: any, request: any) {
    const [from, to] = [+request.range.from / 1000, +request.range.to / 1000];
    const least = target.interval ? rangeUtil.intervalToSeconds(target.interval) : 1;
    const step = Math.max(least, Math.round((request.intervalMs ?? 1000) / 1000));
    const expr = this.fill(target.expr, {
      ...request.scopedVars,
      __rate_interval: { value: `${Math.max(step + SCRAPE_S, 4 * SCRAPE_S)}s` },
      __interval: { value: `${step}s` },
      __range: { value: `${Math.round(to - from)}s` },
    });
    const [start, end] = [from, to].map((t) => Math.floor(t / step) * step);
    const data = await ask(
      target.instant
        ? `query?query=${encodeURIComponent(expr)}&time=${to}`
        : `query_range?query=${encodeURIComponent(expr)}&start=${start}&end=${end}&step=${step}`
    );
    queries.push({ expr, series: data.result.length });
    return target.format === 'table'
      ? [table(target, data.result, request.targets.length)]
      : data.result.map((series: any) => lines(target, series));
  }

  async metricFindQuery(asked: any) {
    const [, of, label] = QUERY.exec(this.fill(asked.query ?? asked, {}))!;
    const match = of ? `?match[]=${encodeURIComponent(of)}` : '';
    const values: string[] = await ask(`label/${label}/values${match}`);
    return values.map((text) => ({ text }));
  }

  async testDatasource() {
    return { status: 'success', message: '' };
  }

  getRef() {
    return { type: 'prometheus', uid: 'prom' };
  }
}

function table(target: any, result: any[], targets: number) {
  const labels = [...new Set<string>(result.flatMap((r) => Object.keys(r.metric)))].sort();
  const value = targets > 1 ? `Value #${target.refId}` : 'Value';
  const column = (name: string, type: FieldType, of: (r: any) => any) => ({ name, type, config: {}, values: result.map(of) });
  return toDataFrame({
    refId: target.refId,
    fields: [
      column('Time', FieldType.time, (r) => r.value[0] * 1000),
      ...labels.map((label) => column(label, FieldType.string, (r) => r.metric[label] ?? '')),
      column(value, FieldType.number, (r) => +r.value[1]),
    ],
  });
}

function lines(target: any, series: any) {
  const values = series.values ?? [series.value];
  const name = target.legendFormat?.replace(/\{\{\s*(.+?)\s*\}\}/g, (_: any, key: string) => series.metric[key] ?? '');
  return toDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, config: {}, values: values.map((v: any) => v[0] * 1000) },
      { name: 'Value', type: FieldType.number, labels: series.metric, config: name ? { displayNameFromDS: name } : {}, values: values.map((v: any) => +v[1]) },
    ],
  });
}
