// Takes the picture: node shot.mjs URL FILE WIDTH HEIGHT. Ends with 1 if anything failed.
import { chromium } from 'playwright-core';

const [url, path, width, height] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const page = await browser.newPage({ viewport: { width: +width, height: +height } });
const failures = [];
page.on('pageerror', (error) => failures.push(String(error.stack ?? error)));
await page.goto(url);
await page.waitForFunction(() => document.querySelectorAll('[data-testid^="data-testid Panel header"]').length > 20, null, { timeout: 60000 });
await page.waitForLoadState('networkidle');
await page.waitForTimeout(3000); // animations, late layout
failures.push(...(await page.evaluate(() => window.__errors)));
const empty = (await page.evaluate(() => window.__queries)).filter((query) => !query.series);
await page.screenshot({ path });
await browser.close();
console.log(`${empty.length} queries without data`, empty.map((query) => query.expr));
console.log([...new Set(failures)].join('\n') || 'no errors');
process.exit(failures.length ? 1 : 0);
