import { QueryClient } from '@tanstack/vue-query';
import type { Ref } from 'vue';
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

interface Query {
  isFetching: Ref<boolean>;
  refetch(options: { cancelRefetch: boolean }): Promise<{ isSuccess: boolean }>;
}

/**
 * Asks anew, and answers whether that went well. An answer that is on its way may be older than the reason to ask: it is
 * waited for, and what may not be asked about any more by then is not.
 */
export async function askAnew(query: Query, mayAsk: () => boolean = () => true): Promise<boolean> {
  const join = { cancelRefetch: false };
  if (mayAsk() && query.isFetching.value) await query.refetch(join);
  return mayAsk() && (await query.refetch(join)).isSuccess;
}
