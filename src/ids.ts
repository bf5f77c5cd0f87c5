import { randomFillSync } from 'node:crypto';

const CHUNK = 4096;
let random = '';
let used = CHUNK * 2;

/** So many random hex digits, from a stock that is filled now and then. */
function randomHex(digits: number): string {
  if (used + digits > random.length) {
    random = randomFillSync(Buffer.allocUnsafe(CHUNK)).toString('hex');
    used = 0;
  }
  used += digits;
  return random.slice(used - digits, used);
}

let lastMs = Number.NaN;
let timePart = '';

/** A UUID of version 7: 48 bits of wall-clock ms, then chance. Rows with such ids are stored side by side. */
export function timeOrderedId(now: number): string {
  if (now !== lastMs) {
    lastMs = now;
    const time = now.toString(16).padStart(12, '0');
    timePart = `${time.slice(0, 8)}-${time.slice(8)}-7`;
  }
  const chance = randomHex(19);
  const variant = '89ab'[Number.parseInt(chance[18] as string, 16) & 3];
  return `${timePart}${chance.slice(0, 3)}-${variant}${chance.slice(3, 6)}-${chance.slice(6, 18)}`;
}
