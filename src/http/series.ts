import type { ReadSeries } from '../actors/series.js';
import type { Clock } from '../clock.js';
import {
  METRICS,
  pointsOf,
  RANGES,
  type Range,
  type SeriesFilter,
  type SeriesMetric,
} from '../machines/series.js';
import { requiredOneOf } from './query.js';
import type { Route } from './routes.js';

export interface SeriesRoutesDeps {
  series: ReadSeries;
  clock: Clock;
}

const METRIC_NAMES = Object.keys(METRICS) as SeriesMetric[];
const RANGE_NAMES = Object.keys(RANGES) as Range[];

/** One number over time. */
export function seriesRoutes({ series, clock }: SeriesRoutesDeps): Route[] {
  return [
    {
      method: 'GET',
      path: '/api/dashboard/series',
      access: 'dashboard.read',
      run: async ({ query }) => {
        const metric = requiredOneOf(query, 'metric', METRIC_NAMES);
        const range = requiredOneOf(query, 'range', RANGE_NAMES);
        const steps = await series(range, filterOf(query));
        const points = pointsOf(steps, range, metric, clock.now());
        return { metric, range, step_secs: RANGES[range].stepSecs, points };
      },
    },
  ];
}

function filterOf(query: URLSearchParams): SeriesFilter {
  const endpointId = query.get('endpoint_id') ?? '';
  const model = query.get('model') ?? '';
  return {
    ...(endpointId === '' ? {} : { endpointId }),
    ...(model === '' ? {} : { model }),
  };
}
