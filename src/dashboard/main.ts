import { VueQueryPlugin } from '@tanstack/vue-query';
import { createApp } from 'vue';
import App from './App.vue';
import './base.css';
import { queries } from './live/queries.js';
import { fetchPages, router } from './router.js';
import { i18n } from './words/index.js';

createApp(App).use(router).use(i18n).use(VueQueryPlugin, { queryClient: queries }).mount('#app');

const whenIdle = window.requestIdleCallback ?? setTimeout;
router.isReady().then(
  () => whenIdle(fetchPages),
  () => {},
);
