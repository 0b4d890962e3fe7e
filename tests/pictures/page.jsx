// A dashboard as Grafana's published components draw it, with data of a Prometheus. Grafana's server has no part in it: what it and
// its panel plugins do between the two is here, for the panels that gwmon's dashboards have.
//
// Of the address: dashboard (its name), prometheus (its address), theme, from and to (seconds since 1970; without them it is live),
// and var-… for variables.
// At the end window.pictures tells of each panel how many frames and rows it has, and its error.

import { createRoot } from 'react-dom/client';
import { firstValueFrom } from 'rxjs';
import {
  EventBusSrv, FieldType, ThemeContext, applyFieldOverrides, cacheFieldDisplayNames, createDataFrame, createTheme, dateTime,
  getFieldDisplayValues, standardFieldConfigEditorRegistry, standardTransformers, standardTransformersRegistry, transformDataFrame,
} from '@grafana/data';
import { initPluginTranslations } from '@grafana/i18n';
import { BigValue, GlobalStyles, PanelChrome, PanelContextProvider, TimeSeries } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import './page.css';

const asked = new URLSearchParams(location.search);
// Without an end the board is live: the last quarter of an hour, read again and again.
const isLive = !asked.has('to');
const to = isLive ? Math.floor(Date.now() / 1000) : Number(asked.get('to'));
const from = isLive ? to - 900 : Number(asked.get('from'));
const width = 1600;
const gap = 8;
// As Grafana chooses it for a panel of this width; its rates then span four scrapes at least.
const step = Math.max(5, Math.ceil((to - from) / 250));
const rateInterval = `${Math.max(4 * 5, step + 5)}s`;
const theme = createTheme({ colors: { mode: asked.get('theme') ?? 'dark' } });

async function prometheus(path, parameters) {
  const answer = await fetch(`${asked.get('prometheus')}/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const { status, data, error } = await answer.json();
  if (status !== 'success') {
    throw new Error(error);
  }
  return data;
}

const chosen = [];

/** The values of the variables, each of which may ask for those before it. */
async function resolve(variables) {
  const values = { __rate_interval: rateInterval };
  for (const variable of variables.filter(({ type }) => type === 'query')) {
    const given = asked.get(`var-${variable.name}`);
    const [, selector, label] = /^label_values\((.*), (\w+)\)$/.exec(filled(variable.query.query, values));
    const found = await prometheus(`label/${label}/values`, { 'match[]': selector, start: from, end: to });
    const all = variable.includeAll && given === null;
    values[variable.name] = all ? variable.allValue : given ?? found[0] ?? '';
    chosen.push(`${variable.label}: ${all ? 'All' : values[variable.name]}`);
  }
  return values;
}

const filled = (text, values) => text.replace(/\$\{?(\w+)(:\w+)?\}?/g, (whole, name) => values[name] ?? whole);
// Grafana shows what is no number as a gap.
const number = (text) => (text === 'NaN' ? null : text === '+Inf' ? Infinity : text === '-Inf' ? -Infinity : Number(text));

/** The data frames of a query, as Grafana's data source makes them. */
async function frames(target, values, several) {
  const query = filled(target.expr, values);
  if (target.format === 'table') {
    const { result } = await prometheus('query', { query, time: to });
    const labels = [...new Set(result.flatMap(({ metric }) => Object.keys(metric)))];
    const columns = labels.map((name) => ({ name, type: FieldType.string, values: result.map(({ metric }) => metric[name] ?? '') }));
    const time = { name: 'Time', type: FieldType.time, values: result.map(({ value }) => value[0] * 1000) };
    const value = { name: several ? `Value #${target.refId}` : 'Value', type: FieldType.number, values: result.map(({ value }) => number(value[1])) };
    return [createDataFrame({ refId: target.refId, fields: [time, ...columns, value] })];
  }
  const { result } = target.instant
    ? await prometheus('query', { query, time: to })
    : await prometheus('query_range', { query, start: from, end: to, step });
  return result.map(({ metric, value, values: points = [value] }) => {
    const at = new Map(points.map(([time, text]) => [time, number(text)]));
    // A step without a sample is a gap.
    const times = target.instant ? [value[0]] : Array.from({ length: Math.floor((to - from) / step) + 1 }, (_, i) => from + i * step);
    const name = target.legendFormat.replace(/\{\{(\w+)\}\}/g, (_, label) => metric[label] ?? '');
    return createDataFrame({
      refId: target.refId,
      fields: [
        { name: 'Time', type: FieldType.time, config: { interval: step * 1000 }, values: times.map((time) => time * 1000) },
        { name: 'Value', type: FieldType.number, labels: metric, config: { displayNameFromDS: name }, values: times.map((time) => at.get(time) ?? null) },
      ],
    });
  });
}

/** Registers what Grafana's frontend registers at its start: field options and transformations are looked up by name. */
function register(dashboard) {
  const customs = new Set(dashboard.panels.flatMap((panel) => Object.keys(panel.fieldConfig?.defaults.custom ?? {})));
  const option = (id, path, isCustom) => ({
    id, path, name: id, isCustom, settings: {}, editor: () => null, override: () => null,
    process: (value) => value, shouldApply: () => true,
  });
  const names = ['unit', 'min', 'max', 'decimals', 'thresholds', 'mappings', 'color', 'displayName', 'noValue', 'links'];
  const options = [...names.map((name) => option(name, name, false)), ...[...customs].map((name) => option(`custom.${name}`, name, true))];
  standardFieldConfigEditorRegistry.setInit(() => options);
  const transformers = new Map(Object.values(standardTransformers).map((transformer) => [transformer.id, transformer]));
  standardTransformersRegistry.setInit(() => [...transformers.values()].map((transformer) => ({
    id: transformer.id, name: transformer.name, editor: () => null, transformation: async () => transformer,
  })));
}

async function load(panel, values) {
  const all = await Promise.all(panel.targets.map((target) => frames(target, values, panel.targets.length > 1)));
  const transformed = await firstValueFrom(transformDataFrame(panel.transformations ?? [], all.flat()));
  const data = applyFieldOverrides({
    data: transformed, fieldConfig: panel.fieldConfig, replaceVariables: (text) => text, theme, timeZone: 'utc',
    fieldConfigRegistry: standardFieldConfigEditorRegistry,
  });
  cacheFieldDisplayNames(data);
  return data;
}

function Content({ panel, data, width, height }) {
  if (data.every((frame) => frame.length === 0)) {
    return <div className="empty">No data</div>;
  }
  const timeRange = { from: dateTime(from * 1000), to: dateTime(to * 1000), raw: { from: 'now-1h', to: 'now' } };
  switch (panel.type) {
    case 'timeseries':
      return <TimeSeries frames={data} timeRange={timeRange} timeZone="utc" width={width} height={height} legend={panel.options.legend} options={panel.options} />;
    case 'table':
      return <TableNG data={data[0]} width={width} height={height} timeRange={timeRange} />;
    default: {
      const [shown] = getFieldDisplayValues({
        fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions, replaceVariables: (text) => text, theme, data, timeZone: 'utc',
      });
      const { colorMode, graphMode, justifyMode, textMode } = panel.options;
      return <BigValue value={{ ...shown.display, title: undefined }} width={width} height={height} theme={theme} {...{ colorMode, graphMode, justifyMode, textMode }} />;
    }
  }
}

function Panel({ panel, data, error }) {
  const cell = (width - 23 * gap) / 24;
  const { x, y, w, h } = panel.gridPos;
  const place = { left: x * (cell + gap), top: y * (30 + gap), width: w * cell + (w - 1) * gap, height: h * 30 + (h - 1) * gap };
  if (panel.type === 'row') {
    return <div className="title" style={place}>{panel.title}</div>;
  }
  return (
    <div style={{ position: 'absolute', ...place }}>
      <PanelChrome title={panel.title} width={place.width} height={place.height} statusMessage={error}>
        {(innerWidth, innerHeight) => (error ? null : <Content panel={panel} data={data} width={innerWidth} height={innerHeight} />)}
      </PanelChrome>
    </div>
  );
}

async function main() {
  document.documentElement.style.background = theme.colors.background.canvas;
  await initPluginTranslations('gwmon-pictures', []);
  const dashboard = await (await fetch(`/dashboards/gwmon-${asked.get('dashboard')}.json`)).json();
  register(dashboard);
  const values = await resolve(dashboard.templating.list);
  const panels = await Promise.all(dashboard.panels.map(async (panel) => {
    if (panel.type === 'row') {
      return { panel };
    }
    return load(panel, values).then((data) => ({ panel, data }), (error) => ({ panel, data: [], error: error.message }));
  }));
  const height = Math.max(...dashboard.panels.map(({ gridPos }) => (gridPos.y + gridPos.h) * (30 + gap)));
  const context = { eventBus: new EventBusSrv(), eventsScope: 'gwmon', canAddAnnotations: () => false };
  const root = createRoot(document.getElementById('root'));
  const page = (content) => (
    <ThemeContext.Provider value={theme}><GlobalStyles /><PanelContextProvider value={context}>{content}</PanelContextProvider></ThemeContext.Provider>
  );
  // Text on a canvas is drawn once, so the fonts come first.
  root.render(page(<div className="fonts">Aa <b>Aa</b> <code>Aa</code></div>));
  await Promise.all(['400 12px Inter', '500 12px Inter', '400 12px "Roboto Mono"'].map((font) => document.fonts.load(font)));
  await document.fonts.ready;
  root.render(page(
    <div className="board" style={{ width, height: height + 50, color: theme.colors.text.primary }}>
      <h1>{dashboard.title}<small>{chosen.join(' · ')}</small></h1>
      <div className="grid">{panels.map((loaded) => <Panel key={loaded.panel.id} {...loaded} />)}</div>
    </div>,
  ));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 300))));
  window.pictures = panels.filter(({ data }) => data).map(({ panel, data, error }) => ({
    title: panel.title, error: error ?? null, frames: data.length, rows: Math.max(0, ...data.map((frame) => frame.length)),
  }));
}

if (isLive) {
  setTimeout(() => location.reload(), 15_000);
}
main().catch((error) => { window.pictures = [{ title: 'the page', error: String(error.stack ?? error), frames: 0, rows: 0 }]; });
