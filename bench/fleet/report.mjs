/** Percentile of numbers that are sorted. */
function percentile(sorted, share) {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

const ascending = (numbers) => numbers.sort((a, b) => a - b);
const secs = (ms) => Number((ms / 1000).toFixed(2));

/** A row of the table: seconds, but for what is counted. */
export function summaryOf(lines, { boxes }) {
  const answered = lines.filter(({ failed }) => !failed);
  const total = ascending(answered.map(({ totalMs }) => totalMs));
  const first = ascending(answered.map(({ ttftMs }) => ttftMs));
  const mean = (numbers) => numbers.reduce((sum, one) => sum + one, 0) / numbers.length;
  const errors = ascending(
    answered
      .filter(({ predictedMs }) => predictedMs !== null)
      .map(({ predictedMs, tookMs }) => Math.abs(predictedMs - tookMs) / tookMs),
  );
  const shares = boxes.slice(0, 8).map((_, i) => {
    const count = answered.filter(({ box }) => box === `box-${i}`).length;
    return Math.round((100 * count) / answered.length);
  });
  return {
    'mean s': secs(mean(total)),
    p50: secs(percentile(total, 0.5)),
    p95: secs(percentile(total, 0.95)),
    p99: secs(percentile(total, 0.99)),
    'ttft mean': secs(mean(first)),
    'ttft p50': secs(percentile(first, 0.5)),
    'ttft p95': secs(percentile(first, 0.95)),
    'ttft p99': secs(percentile(first, 0.99)),
    failed: lines.length - answered.length,
    'predicted off by %': Math.round(100 * percentile(errors, 0.5)),
    'share %': boxes.length > 8 ? '' : shares.join(' '),
  };
}
