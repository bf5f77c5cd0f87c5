import { fromStore } from '@xstate/store';

export const EMA_ALPHA = 0.2;

/** Output tokens per second of one endpoint × model × kind, and today's samples. */
export interface TpsState {
  /** Tokens per second; null before the first sample. */
  ema: number | null;
  /** The server-local date the three sums belong to. */
  date: string;
  samples: number;
  tokens: number;
  ms: number;
  /** True once a sample came since the process started: a late seed leaves the EMA then. */
  live: boolean;
}

export const tpsLogic = fromStore({
  context: (input: TpsState) => input,
  on: {
    sample: (state, event: { date: string; tokens: number; ms: number }) => addSample(state, event),
    reseed: (state, event: { seed: TpsState }) => ({
      ...event.seed,
      ema: state.live ? state.ema : event.seed.ema,
      live: state.live,
    }),
  },
});

/** The first sample sets the EMA, each later one moves it by a fifth. Sums start anew with each day. */
export function addSample(state: TpsState, sample: { date: string; tokens: number; ms: number }): TpsState {
  const rate = (sample.tokens * 1000) / sample.ms;
  const sameDay = state.date === sample.date;
  return {
    ema: state.ema === null ? rate : state.ema + EMA_ALPHA * (rate - state.ema),
    date: sample.date,
    samples: (sameDay ? state.samples : 0) + 1,
    tokens: (sameDay ? state.tokens : 0) + sample.tokens,
    ms: (sameDay ? state.ms : 0) + sample.ms,
    live: true,
  };
}

/** What a (re)started tracker begins with: today's tokens ÷ seconds. */
export function tpsSeed(today: { date: string; samples: number; tokens: number; ms: number }): TpsState {
  const ema = today.ms > 0 ? (today.tokens * 1000) / today.ms : null;
  return { ema, ...today, live: false };
}
