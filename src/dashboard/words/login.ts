import { section } from './index.js';

export const loginWords = section('login', {
  username: { en: 'User name', ja: 'ユーザー名' },
  password: { en: 'Password', ja: 'パスワード' },
  wrong: { en: 'The user name or the password is wrong.', ja: 'ユーザー名またはパスワードが違います。' },
  tooMany: {
    en: 'Too many attempts. Wait a minute and try again.',
    ja: '試行回数が多すぎます。1 分ほど待ってからお試しください。',
  },
  starting: {
    en: 'The server is starting or its database is away. Try again soon.',
    ja: 'サーバーが起動中か、データベースに接続できません。少し待ってからお試しください。',
  },
  unreachable: { en: 'The server cannot be reached.', ja: 'サーバーに接続できません。' },
  forgotten: {
    en: 'Password forgotten? On the stopped server:',
    ja: 'パスワードを忘れた場合は、停止したサーバーで:',
  },
});
