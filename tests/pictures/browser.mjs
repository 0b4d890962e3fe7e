// The browser of this machine.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import puppeteer from 'puppeteer-core';

/** Starts it without a window. */
export function launch() {
  const names = ['chromium', 'chromium-browser', 'google-chrome'];
  const programs = names.flatMap((name) => process.env.PATH.split(':').map((folder) => join(folder, name)));
  const executablePath = programs.find((program) => existsSync(program));
  if (!executablePath) {
    throw new Error('there is no chromium on the PATH; install it (Debian: apt install chromium)');
  }
  return puppeteer.launch({ executablePath, args: ['--no-sandbox', '--font-render-hinting=none'] });
}

/** Opens a board, waits until it is drawn, and tells what went wrong and which panels are empty. */
export async function open(browser, address) {
  const page = await browser.newPage();
  await page.setViewport({ width: 1640, height: 900 });
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(String(error)));
  await page.goto(address);
  await page.waitForFunction('window.pictures', { timeout: 60_000 });
  const panels = await page.evaluate('window.pictures');
  const errors = [...complaints, ...panels.filter(({ error }) => error).map(({ title, error }) => `${title}: ${error}`)];
  return { page, panels: panels.length, empty: panels.filter(({ rows }) => rows === 0).map(({ title }) => title), errors };
}
