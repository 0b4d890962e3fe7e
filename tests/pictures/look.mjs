// Opens each dashboard that live.mjs serves, as somebody would: node look.mjs ADDRESS. Fails if a panel has an error, or if one of
// the boards that are filled everywhere is empty.
import { launch, open } from './browser.mjs';

const browser = await launch();
const index = await browser.newPage();
await index.goto(process.argv[2]);
const links = await index.$$eval('a', (found) => found.map(({ href, textContent }) => [textContent, href]));
const problems = [];
for (const [name, address] of links) {
  const { page, panels, empty, errors } = await open(browser, address);
  console.log(`${name}: ${panels} panels, ${empty.length} empty`);
  problems.push(...errors.map((error) => `${name}: ${error}`));
  if (['gateways', 'gateway'].includes(name) && empty.length > panels / 2) {
    problems.push(`${name}: no data in ${empty.join(', ')}`);
  }
  await page.close();
}
await browser.close();
console.log(problems.join('\n'));
process.exit(problems.length > 0 || links.length < 8 ? 1 : 0);
