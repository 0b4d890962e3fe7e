// Serves the dashboards with data of a Prometheus until that is gone: node live.mjs PROMETHEUS. Prints the address.
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { serve } from './server.mjs';

const [prometheus] = process.argv.slice(2);
const files = await readdir(join(import.meta.dirname, '../../deploy/dashboards'));
const names = files.flatMap((file) => /^gwmon-(.*)\.json$/.exec(file)?.[1] ?? []);
const link = (name) => `<li><a href="/board.html?${new URLSearchParams({ dashboard: name, prometheus })}">${name}</a>`;
const server = await serve(`<!doctype html><meta charset="utf-8"><title>gwmon</title><h1>gwmon's dashboards</h1>
<p>Rendered with Grafana's published components. Each shows the last 15 minutes, and reads them again every 15 seconds.<ul>${names.map(link).join('')}</ul>`);
console.log(`http://127.0.0.1:${server.address().port}`);

for (let misses = 0; misses < 3;) {
  await new Promise((done) => setTimeout(done, 5000));
  misses = await fetch(`${prometheus}/-/ready`).then(() => 0, () => misses + 1);
}
process.exit(0);
