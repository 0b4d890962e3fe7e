// Bundles the page into dist/.
import { build } from 'esbuild';
import { cp, writeFile } from 'node:fs/promises';

await build({
  entryPoints: ['page.jsx'],
  bundle: true,
  format: 'esm',
  splitting: true,
  minify: true,
  jsx: 'automatic',
  outdir: 'dist',
  define: { 'process.env.NODE_ENV': '"production"', global: 'window' },
  // The editor's font is there whether or not the editor is shown.
  loader: { '.ttf': 'file', '.woff': 'file', '.woff2': 'file' },
  logLevel: 'error',
});
await cp('node_modules/@grafana/ui/dist/public', 'dist/public', { recursive: true });
await writeFile('dist/board.html', `<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="/page.css">
<script>window.__grafana_public_path__ = "/public/"</script><div id="root"></div><script type="module" src="/page.js"></script>
`);
