import { section } from './index.js';

export const chartWords = section('chart', {
  label: {
    en: 'Statechart of {machine}; active now: {state}',
    ja: '{machine} の状態遷移図。現在の状態: {state}',
  },
  initial: { en: 'entered first', ja: '初期状態' },
});
