import { QueryClient, VueQueryPlugin } from '@tanstack/vue-query';
import { createApp } from 'vue';
import App from './App.vue';
import './base.css';
import { Refusal } from './api/http.js';
import { router } from './router.js';
import { i18n } from './words/index.js';

const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 2000,
      refetchOnWindowFocus: true,
      // What the server refuses it would refuse again.
      retry: (failures, error) => !(error instanceof Refusal) && failures < 3,
    },
  },
});

createApp(App).use(router).use(i18n).use(VueQueryPlugin, { queryClient }).mount('#app');
