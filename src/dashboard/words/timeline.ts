import { section } from './index.js';

export const timelineWords = section('timeline', {
  now: { en: 'now', ja: '現在' },
  running: { en: '{time}, still running', ja: '{time}(進行中)' },
  counts: { en: '{success} success, {error} error', ja: '成功 {success}、エラー {error}' },
  summary: {
    en: 'Requests of the last 60 minutes: {success} success, {error} error',
    ja: '過去 60 分のリクエスト: 成功 {success}、エラー {error}',
  },
  success: { en: 'Success', ja: '成功' },
  error: { en: 'Error', ja: 'エラー' },
  current: { en: 'current minute', ja: '現在の 1 分' },
});
