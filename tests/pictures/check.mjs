// Validates dashboards against Grafana's published TypeScript types, which name the values of enums and the options of each kind of
// panel, of which the Go types know nothing: node check.mjs FOLDER. Prints what is wrong.
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import Ajv from 'ajv';
import { createGenerator } from 'ts-json-schema-generator';

const [folder] = process.argv.slice(2);
const raw = 'node_modules/@grafana/schema/dist/types/raw';
const ajv = new Ajv({ strict: false, allErrors: true });
const validator = (file, type) =>
  ajv.compile(createGenerator({ path: `${raw}/${file}`, type, tsconfig: 'tsconfig.json', skipTypeCheck: true, additionalProperties: false }).createSchema(type));
const panels = {};
for (const type of ['timeseries', 'stat', 'table']) {
  const file = `composable/${type}/panelcfg/x/types.gen.d.ts`;
  // A panel's options of its own for a field; a number has none.
  panels[type] = { options: validator(file, 'Options'), custom: type === 'stat' ? () => true : validator(file, 'FieldConfig') };
}
const whole = validator('dashboard/x/types.gen.d.ts', 'Dashboard');

const problems = [];
function check(validate, value, place) {
  if (!validate(value)) {
    problems.push(...validate.errors.map(({ instancePath, message, params }) => `${place}${instancePath}: ${message} ${JSON.stringify(params)}`));
  }
}
for (const file of (await readdir(folder)).filter((name) => name.endsWith('.json'))) {
  const dashboard = JSON.parse(await readFile(join(folder, file), 'utf8'));
  check(whole, dashboard, file);
  for (const { type, title, options, fieldConfig } of dashboard.panels.filter(({ type }) => type !== 'row')) {
    const place = `${file}: ${title}`;
    if (panels[type]) {
      check(panels[type].options, options, `${place}: options`);
      check(panels[type].custom, fieldConfig.defaults.custom ?? {}, `${place}: custom`);
    } else {
      problems.push(`${place}: there is no panel ${type}`);
    }
  }
}
console.log(problems.join('\n'));
process.exit(problems.length > 0 ? 1 : 0);
