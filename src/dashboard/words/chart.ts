import { section } from './index.js';

export const chartWords = section('chart', {
  label: {
    en: 'Statechart of {machine}; active now: {state}',
    ja: '{machine} の状態遷移図。現在の状態: {state}',
  },
  region: { en: 'Statechart of {machine}', ja: '{machine} の状態遷移図' },
  initial: { en: 'entered first', ja: '初期状態' },
});
