/** What was met in one bucket: the mean number of requests, and the mean of the values. */
export interface Point {
  readonly at: number;
  readonly value: number;
  readonly samples: number;
}

/** Buckets begin at these numbers. */
const BUCKETS = [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48];
const TABLE = 64;
const WEIGHT = 0.1;
/** What is off by more than this factor is no chance. */
const CHANCE = 1.5;
const MOST_DRIFT = 2;
const FEW = 5;
/** One of the first that is so much below those before it shows what they were: the machine was not warm yet. */
const NOT_WARM = 4;
const ALL_BUT_SURE = 0.9;

/**
 * What a number of requests in flight does to a duration: learned where it was met, and carried on from there. It does
 * not change; the values are worked out when they are first asked for.
 */
export class Curve {
  readonly points: readonly (Point | null)[];
  #table: Float64Array | null = null;

  constructor(points: readonly (Point | null)[] = BUCKETS.map(() => null)) {
    this.points = points;
  }

  /**
   * The curve after a sample at `at` requests. With `drifts` all of it moves as its point there does: a machine that got
   * slower got slower everywhere.
   */
  with(at: number, value: number, drifts: boolean): Curve {
    const bucket = bucketOf(at);
    const before = this.points[bucket] ?? null;
    const now = moved(before, at, value);
    const drift = drifts && before !== null && isChange(before, value) ? driftOf(before, now) : 1;
    const points =
      drift === 1
        ? this.points.slice()
        : this.points.map((point) => (point === null ? null : { ...point, value: point.value * drift }));
    points[bucket] = now;
    for (let i = 0; i < bucket; i += 1) points[i] = faded(points[i] ?? null, now);
    return new Curve(points);
  }

  get isEmpty(): boolean {
    return this.points.every((point) => point === null);
  }

  /** The value at so many requests, never less than at fewer; null before the first sample. */
  valueAt(at: number): number | null {
    if (this.#table === null) {
      const points = this.points.filter((point) => point !== null);
      if (points.length === 0) return null;
      this.#table = tableOf(points);
    }
    if (at < TABLE) return this.#table[Math.max(0, at | 0)] as number;
    // Past the table every request more takes its share.
    return ((this.#table[TABLE - 1] as number) * (at + 1)) / TABLE;
  }
}

function weightOf(before: Point, value: number): number {
  if (before.samples < FEW && value * NOT_WARM < before.value) return ALL_BUT_SURE;
  return Math.max(WEIGHT, 1 / (before.samples + 1));
}

/** With less to do it cannot take much longer: what says so is old. */
function faded(point: Point | null, busier: Point): Point | null {
  if (point === null || busier.samples < FEW || point.value <= busier.value * CHANCE) return point;
  return { ...point, value: point.value + WEIGHT * (busier.value - point.value) };
}

function moved(before: Point | null, at: number, value: number): Point {
  if (before === null) return { at, value, samples: 1 };
  const weight = weightOf(before, value);
  return {
    at: before.at + weight * (at - before.at),
    value: before.value + weight * (value - before.value),
    samples: Math.min(1000, before.samples + 1),
  };
}

/** It is off by more than chance. */
function isChange({ value, samples }: Point, newest: number): boolean {
  return samples >= FEW && Math.abs(newest - value) > (CHANCE - 1) * value;
}

/** As far as one point has moved, so that any number of samples moves the others no further than they moved it. */
function driftOf(before: Point, now: Point): number {
  if (before.value <= 0 || now.value <= 0) return 1;
  return Math.min(MOST_DRIFT, Math.max(1 / MOST_DRIFT, now.value / before.value));
}

function bucketOf(at: number): number {
  let bucket = BUCKETS.length - 1;
  while (bucket > 0 && at < (BUCKETS[bucket] as number) - 0.5) bucket -= 1;
  return bucket;
}

/**
 * Between two points a straight line, and never falling. Below the first one a little hope; past the last one as if the
 * machine did nothing at the same time.
 */
function tableOf(points: Point[]): Float64Array {
  const rising: Point[] = [];
  let most = 0;
  for (const point of points) {
    most = Math.max(most, point.value);
    rising.push({ ...point, value: most });
  }
  const first = rising[0] as Point;
  const last = rising[rising.length - 1] as Point;
  const slope = slopeAfter(rising);
  const table = new Float64Array(TABLE);
  let next = 0;
  for (let at = 0; at < TABLE; at += 1) {
    while (next < rising.length && (rising[next] as Point).at < at) next += 1;
    const above = rising[next];
    if (above === undefined) table[at] = last.value + slope * (at - last.at);
    else if (next === 0) table[at] = first.value * Math.sqrt((at + 1) / (above.at + 1));
    else table[at] = between(rising[next - 1] as Point, above, at);
  }
  return table;
}

function between(a: Point, b: Point, at: number): number {
  const share = b.at === a.at ? 1 : (at - a.at) / (b.at - a.at);
  return a.value + share * (b.value - a.value);
}

/** What each request past the last point adds: its share, or what the last ones added if that is more. */
function slopeAfter(rising: Point[]): number {
  const last = rising[rising.length - 1] as Point;
  const share = last.value / (last.at + 1);
  const before = rising[rising.length - 2];
  if (before === undefined || last.at <= before.at) return share;
  return Math.max(share, (last.value - before.value) / (last.at - before.at));
}
