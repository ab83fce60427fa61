// Draws a dashboard by Grafana's own libraries (@grafana/scenes, data, ui), without its
// server: variables, layout, transformations, field options, mappings and units are
// Grafana's. Its panels are not on npm: those below bind its components, or draw.
import React from 'react';
import { createRoot } from 'react-dom/client';
import { MemoryRouter } from 'react-router-dom';
import { from } from 'rxjs';
import * as GD from '@grafana/data';
import * as RT from '@grafana/runtime';
import { initPluginTranslations } from '@grafana/i18n';
import { GlobalStyles, TimeSeries, BigValue, BarGauge, Table, VizRepeater, PortalContainer } from '@grafana/ui';
import { EmbeddedScene, SceneGridLayout, SceneGridItem, SceneGridRow, VizPanel, SceneQueryRunner, SceneTimeRange, SceneTimePicker, SceneRefreshPicker, SceneControlsSpacer, SceneVariableSet, VariableValueSelectors, QueryVariable, DataSourceVariable, SceneDataTransformer, sceneGraph } from '@grafana/scenes';
import { errors, Prometheus } from './source';
import { StateTimeline, Heatmap } from './substitutes';

const theme = GD.createTheme({ colors: { mode: 'dark' } });
(RT.config as any).theme2 = theme;

// --- what a field may be told --------------------------------------------------

const PROCESSORS: Record<string, any> = {
  unit: GD.unitOverrideProcessor, min: GD.numberOverrideProcessor, max: GD.numberOverrideProcessor,
  decimals: GD.numberOverrideProcessor, displayName: GD.displayNameOverrideProcessor,
  color: GD.identityOverrideProcessor, noValue: GD.stringOverrideProcessor, links: GD.dataLinksOverrideProcessor,
  mappings: GD.valueMappingsOverrideProcessor, thresholds: GD.thresholdsOverrideProcessor,
};
const DEFAULTS: Record<string, any> = {
  thresholds: { mode: 'absolute', steps: [{ value: -Infinity, color: 'green' }] },
  color: { mode: 'thresholds' },
  mappings: [],
};
const option = (id: string, process: any, defaultValue: any) => ({
  id, path: id, name: id, process, defaultValue, settings: {}, editor: () => null, override: () => null,
  shouldApply: () => true, getItemsCount: () => 0,
});
GD.standardFieldConfigEditorRegistry.setInit(
  () => Object.entries(PROCESSORS).map(([id, process]) => option(id, process, DEFAULTS[id])) as any
);
const TRANSFORMERS = new Map(Object.values((GD as any).standardTransformers).map((t: any) => [t.id, t])); // some twice
GD.standardTransformersRegistry.setInit(
  () => [...TRANSFORMERS.values()].map((t) => ({ id: t.id, name: t.name, transformation: t, editor: () => null, imageDark: '', imageLight: '' })) as any
);
const custom = (defaults: Record<string, any>) => ({
  useCustomConfig: (builder: any) => {
    for (const [id, value] of Object.entries(defaults)) {
      builder.addCustomEditor(option(id, GD.identityOverrideProcessor, value));
    }
  },
});
const LINES = {
  drawStyle: 'line', lineInterpolation: 'linear', lineWidth: 1, fillOpacity: 0, gradientMode: 'none', spanNulls: false,
  showPoints: 'auto', pointSize: 5, stacking: { mode: 'none', group: 'A' }, axisPlacement: 'auto', axisLabel: '',
  axisColorMode: 'text', axisCenteredZero: false, axisBorderShow: false, scaleDistribution: { type: 'linear' },
  hideFrom: { tooltip: false, viz: false, legend: false }, thresholdsStyle: { mode: 'off' }, lineStyle: { fill: 'solid' },
  barAlignment: 0, barWidthFactor: 0.6, insertNulls: false, transform: undefined,
};
const CELLS = { align: 'auto', cellOptions: { type: 'auto' }, inspect: false, filterable: false, width: undefined, minWidth: undefined };

// --- panels ------------------------------------------------------------------------

const shown = (p: any) => () => GD.getFieldDisplayValues({
  fieldConfig: p.fieldConfig, reduceOptions: p.options.reduceOptions, replaceVariables: p.replaceVariables, theme,
  data: p.data.series, sparkline: p.options.graphMode !== 'none', timeZone: p.timeZone,
} as any);
const orNothing = (draw: (p: any) => any) => (p: any) => p.data.series.some((frame: any) => frame.length) ? draw(p) : (
  <div style={{ display: 'flex', height: '100%', alignItems: 'center', justifyContent: 'center', color: '#ccccdc' }}>
    {p.fieldConfig.defaults.noValue ?? 'No data'}
  </div>
);
const repeated = (p: any, more: any, draw: (q: any) => any) => (
  <VizRepeater getValues={shown(p)} width={p.width} height={p.height} source={p.data} renderCounter={p.renderCounter}
    getAlignmentFactors={GD.getDisplayValueAlignmentFactors} orientation={p.options.orientation} renderValue={draw} {...more} />
);
const PANELS: Record<string, GD.PanelPlugin> = {
  timeseries: new GD.PanelPlugin(orNothing((p) => (
    <TimeSeries frames={p.data.series} structureRev={p.data.structureRev} timeRange={p.timeRange} timeZone={p.timeZone}
      width={p.width} height={p.height} legend={p.options.legend} options={p.options} />
  ))).useFieldConfig({ ...custom(LINES), standardOptions: { color: { defaultValue: { mode: 'palette-classic' } } as any } }),
  stat: new GD.PanelPlugin(orNothing((p) => repeated(p, { autoGrid: true, itemSpacing: 3 }, (q) => (
    <BigValue value={q.value.display} sparkline={q.value.sparkline} colorMode={p.options.colorMode} graphMode={p.options.graphMode}
      textMode={p.options.textMode} justifyMode={p.options.justifyMode} width={q.width} height={q.height} theme={theme} count={q.count} />
  )))).useFieldConfig({}),
  bargauge: new GD.PanelPlugin(orNothing((p) => repeated(p, { minVizHeight: 16, itemSpacing: 8 }, (q) => (
    <BarGauge value={q.value.display} width={q.width} height={q.height} field={q.value.field} theme={theme} itemSpacing={8}
      display={q.value.view?.getFieldDisplayProcessor(q.value.colIndex)} orientation={p.options.orientation}
      displayMode={p.options.displayMode} namePlacement={p.options.namePlacement} alignmentFactors={q.alignmentFactors} />
  )))).useFieldConfig({}),
  table: new GD.PanelPlugin(orNothing((p) => (
    <Table data={p.data.series[0]} width={p.width} height={p.height} cellHeight={'sm' as any} initialSortBy={p.options.sortBy} />
  ))).useFieldConfig(custom(CELLS)),
  'state-timeline': new GD.PanelPlugin(orNothing((p) => (
    <StateTimeline series={p.data.series} timeRange={p.timeRange} width={p.width} height={p.height} nameOf={GD.getFieldDisplayName} />
  ))).useFieldConfig(custom({ fillOpacity: 70, lineWidth: 0 })),
  heatmap: new GD.PanelPlugin(orNothing((p) => (
    <Heatmap series={p.data.series} timeRange={p.timeRange} width={p.width} height={p.height} />
  ))).useFieldConfig(custom({ hideFrom: {}, scaleDistribution: {} })),
};
for (const [id, plugin] of Object.entries(PANELS)) {
  (plugin as any).meta = { id, name: id, info: { version: '', logos: { small: '', large: '' } }, module: '', baseUrl: '', type: 'panel', sort: 1 };
}
RT.setPluginImportUtils({
  importPanelPlugin: async (id) => PANELS[id] ?? (errors.push(`no panel for ${id}`), PANELS.stat),
  getPanelPluginFromCache: (id) => PANELS[id],
});

// --- what a Grafana server would provide -------------------------------------------

let scene: any;
const about: any = {
  id: 1, uid: 'prom', type: 'prometheus', name: 'Prometheus', isDefault: true, readOnly: true, jsonData: {}, access: 'proxy',
  meta: { id: 'prometheus', name: 'Prometheus', info: { logos: { small: '', large: '' } }, metrics: true },
};
const source: any = Object.assign(new Prometheus(about), { meta: about.meta, type: about.type, uid: about.uid, name: about.name });
source.fill = (text: string, scoped: any) => sceneGraph.interpolate(scene, text, scoped, (v: any) => Array.isArray(v) ? `(${v.join('|')})` : String(v));
RT.setDataSourceSrv({ get: async () => source, getList: () => [about], getInstanceSettings: () => about, reload() {}, registerRuntimeDataSource() {} } as any);
RT.setTemplateSrv({
  getVariables: () => [], containsTemplate: (text: string) => text.includes('$'), updateTimeRange() {},
  replace: (text: string, scoped: any, format: any) => scene ? sceneGraph.interpolate(scene, text, scoped, format) : text,
} as any);
const result = (request: any, more: any) => ({ series: [], annotations: [], timeRange: request.range, request, ...more });
RT.setRunRequest((ds: any, request: any) => from(
  ds.query(request).then(
    (found: any) => result(request, { state: GD.LoadingState.Done, series: found.data }),
    (error: any) => result(request, { state: GD.LoadingState.Error, errors: [{ message: String(error) }] })
  )
) as any);
(RT as any).setAppEvents(new GD.EventBusSrv());

// --- the dashboard -----------------------------------------------------------------

const place = ({ gridPos: { x, y, w, h } }: any) => ({ x, y, width: w, height: h });

function variable(v: any): any {
  if (v.type === 'datasource') {
    return new DataSourceVariable({ name: v.name, label: v.label, pluginId: v.query, value: 'prom', text: 'Prometheus' });
  }
  return new QueryVariable({
    name: v.name, label: v.label, datasource: v.datasource, query: v.query, sort: v.sort, refresh: v.refresh,
    isMulti: v.multi, includeAll: v.includeAll, allValue: v.allValue, defaultToAll: v.includeAll,
  });
}

function panel(p: any): any {
  const asked = new SceneQueryRunner({ datasource: p.datasource, queries: p.targets, maxDataPoints: 300 });
  const $data = p.transformations ? new SceneDataTransformer({ $data: asked, transformations: p.transformations }) : asked;
  return new SceneGridItem({
    ...place(p),
    body: new VizPanel({ key: `panel-${p.id}`, title: p.title, description: p.description, pluginId: p.type, options: p.options, fieldConfig: p.fieldConfig, $data }),
  });
}

async function main() {
  await initPluginTranslations('pyfailover', []);
  const d = await (await fetch('/dashboard.json')).json();
  const time = { ...d.time, ...Object.fromEntries(new URLSearchParams(location.search)) };
  const children = d.panels.map((p: any) => p.type !== 'row' ? panel(p) : new SceneGridRow({
    title: p.title, isCollapsible: true, isCollapsed: p.collapsed, x: 0, y: p.gridPos.y, children: p.panels.map(panel),
  }));
  scene = new EmbeddedScene({
    $timeRange: new SceneTimeRange({ from: time.from, to: time.to }),
    $variables: new SceneVariableSet({ variables: d.templating.list.map(variable) }),
    controls: [new VariableValueSelectors({}), new SceneControlsSpacer(), new SceneTimePicker({}), new SceneRefreshPicker({ refresh: '', intervals: [d.refresh] })],
    body: new SceneGridLayout({ children, isLazy: false }),
  });
  const Theme = GD.ThemeContext as any;
  createRoot(document.getElementById('root')!).render(
    <MemoryRouter>
      <Theme.Provider value={theme}>
        <GlobalStyles />
        <h2 style={{ color: '#ccccdc', padding: '8px 16px 0', margin: 0, fontFamily: 'sans-serif' }}>{d.title}</h2>
        <div style={{ display: 'flex', minHeight: 4000, padding: '0 8px' }}><scene.Component model={scene} /></div>
        <PortalContainer />
      </Theme.Provider>
    </MemoryRouter>
  );
}

main().catch((error) => errors.push(`fatal ${error.stack ?? error}`));
