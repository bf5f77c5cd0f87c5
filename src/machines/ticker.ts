import { setup } from 'xstate';

const TICK_MS = 100;

/** The one timer: due checks and housekeeping hang on its tick. */
export const tickerMachine = setup({
  actions: {
    /** Sends out due checks and starts due housekeeping. Provided by the wiring. */
    tick: () => {},
  },
  delays: { tickEvery: TICK_MS },
}).createMachine({
  id: 'ticker',
  initial: 'ticking',
  states: {
    ticking: {
      after: { tickEvery: { target: 'ticking', reenter: true, actions: 'tick' } },
    },
  },
});
