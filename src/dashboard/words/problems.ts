import { section } from './index.js';

/** What is wrong, in words, and what to do about it. */
export const problemWords = section('problems', {
  endpoint_offline: { en: '{name} is offline', ja: '{name} がオフラインです' },
  endpoint_offline_do: {
    en: 'Requests go elsewhere. Is the server running there, and does the address still hold?',
    ja: 'リクエストは他へ送られます。サーバーの稼働とアドレスを確認してください。',
  },
  endpoint_error: { en: 'The last check of {name} failed', ja: '{name} の直近の確認に失敗しました' },
  endpoint_error_do: {
    en: 'It serves only if nobody else can. The next failure takes it offline.',
    ja: '他に応答できるものがない場合のみ使われます。次の失敗でオフラインになります。',
  },
  endpoint_quarantined: { en: '{name} is quarantined', ja: '{name} は隔離されています' },
  endpoint_quarantined_do: {
    en: 'Its actor crashed five times within a minute. Resume it, or wait for the next try.',
    ja: 'アクターが 1 分間に 5 回停止しました。再開するか、次の自動再試行をお待ちください。',
  },
  endpoint_key_lost: { en: 'The key of {name} cannot be read', ja: '{name} のキーを読み取れません' },
  endpoint_key_lost_do: {
    en: 'Set its key and headers again, or bring back the secret key they were sealed with.',
    ja: 'キーとヘッダーを設定し直すか、暗号化に使った秘密鍵を戻してください。',
  },
  circuit_open: { en: 'The circuit of {name} is open', ja: '{name} のサーキットが開いています' },
  circuit_open_do: {
    en: 'Too many requests failed there. It is tried again by itself; its last errors are among the requests.',
    ja: '失敗が多すぎました。自動で再試行されます。直近のエラーはリクエスト一覧にあります。',
  },
  store_trouble: { en: 'The database cannot be written', ja: 'データベースに書き込めません' },
  store_trouble_do: {
    en: 'Requests are served and records wait in memory; they are written when it comes back.',
    ja: 'リクエストは処理され、記録はメモリで待機します。復旧後に書き込まれます。',
  },
  ledger_behind: { en: 'Records wait to be written', ja: '記録の書き込みが遅れています' },
  ledger_behind_do: {
    en: 'The disk is slower than the requests come. Nothing is lost while there is memory.',
    ja: 'ディスクがリクエストより遅い状態です。メモリがある限り失われません。',
  },
  ledger_parked: {
    en: 'The ledger crashed too often and is parked',
    ja: '台帳アクターが繰り返し停止し、退避中です',
  },
  ledger_parked_do: {
    en: 'Records wait in memory; it is tried again each minute. The log says why.',
    ja: '記録はメモリで待機し、1 分ごとに再試行されます。理由はログを参照してください。',
  },
  history_parked: {
    en: 'The timeline crashed too often and is parked',
    ja: '履歴アクターが繰り返し停止し、退避中です',
  },
  history_parked_do: {
    en: 'Nothing is lost; it is tried again each minute. The log says why.',
    ja: '何も失われません。1 分ごとに再試行されます。理由はログを参照してください。',
  },
  queue_parked: {
    en: 'The queue crashed too often and is parked',
    ja: '待ち行列アクターが繰り返し停止し、退避中です',
  },
  queue_parked_do: {
    en: 'Waiting requests are still served; it is tried again each minute. The log says why.',
    ja: '待機中のリクエストは処理され続けます。1 分ごとに再試行されます。理由はログを参照してください。',
  },
  shutting_down: { en: 'The server is shutting down', ja: 'サーバーを終了しています' },
  shutting_down_do: {
    en: 'Running requests finish; new ones are refused.',
    ja: '処理中のリクエストは完了し、新しいものは拒否されます。',
  },
  rows_folded: { en: 'Details of requests were given up', ja: '一部のリクエストの詳細が省略されました' },
  rows_folded_do: {
    en: 'Too many records waited for the database. Counters and sums are whole; single rows are missing.',
    ja: '待機中の記録が多すぎました。集計値は完全ですが、個々の行が欠けています。',
  },
  unseeded: {
    en: 'The server started without everything it knew',
    ja: '一部の記録を読み込めないまま起動しました',
  },
  unseeded_do: {
    en: 'It is read again every 10 s and added then. Until then some numbers are too small.',
    ja: '10 秒ごとに再読み込みされ、後から加算されます。それまで一部の値は小さく表示されます。',
  },
  disk_low: { en: 'The disk is nearly full', ja: 'ディスクの空きがわずかです' },
  disk_low_do: {
    en: 'Make room on the disk of the data dir, or keep history for fewer days.',
    ja: 'データディレクトリのディスクを空けるか、履歴の保存日数を減らしてください。',
  },
  no_endpoints: { en: 'No endpoints yet', ja: 'エンドポイントがありません' },
  no_endpoints_do: {
    en: 'Every request is refused until there is one.',
    ja: '追加されるまですべてのリクエストは拒否されます。',
  },
  unknown: { en: 'Something is wrong: {code}', ja: '問題が発生しています: {code}' },
  unknown_do: { en: 'The log of the server says more.', ja: '詳細はサーバーのログを参照してください。' },
});
