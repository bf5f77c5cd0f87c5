/** A change as a line: what it was and what it is, without what was left as it was or stays empty. */
export function detailWords(detail: Record<string, unknown>): string {
  const { before, after, ...rest } = detail;
  const was = fieldsOf(before);
  const is = fieldsOf(after);
  const changes = [...new Set([...Object.keys(was), ...Object.keys(is)])].flatMap((name) => {
    const [old, fresh] = [told(was[name]), told(is[name])];
    if (old === fresh) return [];
    if (before === undefined) return [`${name}: ${fresh}`];
    return after === undefined ? [`${name}: ${old}`] : [`${name}: ${old || '—'} → ${fresh || '—'}`];
  });
  const others = Object.entries(rest).map(([name, value]) => `${name}: ${told(value)}`);
  return [...changes, ...others].join(', ');
}

function fieldsOf(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

/** Nothing, and what holds nothing, is an empty text. */
function told(value: unknown): string {
  if (value === null || value === undefined || value === '') return '';
  if (Array.isArray(value)) return value.map(told).join(' ');
  if (typeof value !== 'object') return String(value);
  return Object.entries(value)
    .flatMap(([name, inner]) => (told(inner) === '' ? [] : [`${name} ${told(inner)}`]))
    .join(' ');
}
