// Takes a picture of each dashboard, dark and light: node shoot.mjs PROMETHEUS FROM TO FOLDER NAME?VARIABLES…
// Fails if a panel has an error. Prints a line of JSON for each picture, with the panels that are empty.
import { join } from 'node:path';
import { launch, open } from './browser.mjs';
import { serve } from './server.mjs';

const [prometheus, from, to, folder, ...names] = process.argv.slice(2);
const server = await serve('');
const browser = await launch();
let failed = false;
for (const name of names) {
  for (const theme of ['dark', 'light']) {
    const [dashboard, variables = ''] = name.split('?');
    const query = new URLSearchParams({ dashboard, prometheus, from, to, theme });
    const { page, ...found } = await open(browser, `http://127.0.0.1:${server.address().port}/board.html?${query}&${variables}`);
    failed ||= found.errors.length > 0;
    const board = await page.$('.board');
    await board?.screenshot({ path: join(folder, `${dashboard}-${theme}.webp`), type: 'webp', quality: 80 });
    console.log(JSON.stringify({ dashboard, theme, ...found }));
    await page.close();
  }
}
await browser.close();
server.close();
process.exit(failed ? 1 : 0);
