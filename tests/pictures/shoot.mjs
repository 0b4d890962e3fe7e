// Takes a picture of each dashboard, dark and light: node shoot.mjs PROMETHEUS FROM TO FOLDER NAME?VARIABLES…
// Fails if a panel has an error; a panel without data is told. Prints a line of JSON for each picture.
import { createServer } from 'node:http';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { extname, join, normalize } from 'node:path';
import puppeteer from 'puppeteer-core';

const [prometheus, from, to, folder, ...names] = process.argv.slice(2);
const here = import.meta.dirname;
const types = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.json': 'application/json', '.svg': 'image/svg+xml', '.woff2': 'font/woff2' };

// The page, and the dashboards that are shipped. On loopback only.
const server = createServer(async (request, response) => {
  const path = normalize(new URL(request.url, 'http://localhost').pathname);
  const file = path.startsWith('/dashboards/')
    ? join(here, '../../deploy', path)
    : join(here, 'dist', path === '/' ? 'index.html' : path.replace('/public/build/', '/public/'));
  try {
    const content = await readFile(file);
    response.writeHead(200, { 'content-type': types[extname(file)] ?? 'application/octet-stream' }).end(content);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((ready) => server.listen(0, '127.0.0.1', ready));

const programs = ['chromium', 'chromium-browser', 'google-chrome'].flatMap((name) => process.env.PATH.split(':').map((folder) => join(folder, name)));
const executablePath = programs.find((program) => existsSync(program));
if (!executablePath) {
  throw new Error('there is no chromium on the PATH; install it (Debian: apt install chromium)');
}
const browser = await puppeteer.launch({ executablePath, args: ['--no-sandbox', '--font-render-hinting=none'] });
let failed = false;
for (const name of names) {
  for (const theme of ['dark', 'light']) {
    const page = await browser.newPage();
    await page.setViewport({ width: 1640, height: 900 });
    const complaints = [];
    page.on('pageerror', (error) => complaints.push(String(error)));
    const [dashboard, variables = ''] = name.split('?');
    const query = new URLSearchParams({ dashboard, prometheus, from, to, theme });
    await page.goto(`http://127.0.0.1:${server.address().port}/?${query}&${variables}`);
    await page.waitForFunction('window.pictures', { timeout: 60_000 });
    const panels = await page.evaluate('window.pictures');
    const errors = [...complaints, ...panels.filter(({ error }) => error).map(({ title, error }) => `${title}: ${error}`)];
    failed ||= errors.length > 0;
    const board = await page.$('.board');
    if (board) {
      await board.screenshot({ path: join(folder, `${dashboard}-${theme}.webp`), type: 'webp', quality: 80 });
    }
    console.log(JSON.stringify({ dashboard, theme, panels: panels.length, empty: panels.filter(({ rows }) => rows === 0).map(({ title }) => title), errors }));
    await page.close();
  }
}
await browser.close();
server.close();
process.exit(failed ? 1 : 0);
