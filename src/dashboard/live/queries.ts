import { QueryClient } from '@tanstack/vue-query';
import { Refusal } from '../api/http.js';

/** What was asked of the server, kept for a moment and asked again. */
export const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 2000,
      refetchOnWindowFocus: true,
      // What the server refuses it would refuse again.
      retry: (failures, error) => !(error instanceof Refusal) && failures < 3,
    },
  },
});
