import { useQuery } from '@tanstack/vue-query';
import { get } from '../api/http.js';
import type { MachineDefinition } from '../parts/statechart.js';

/** Every statechart there is; they never change while a server runs. */
export function useMachines() {
  return useQuery({
    queryKey: ['machines'],
    queryFn: ({ signal }) => get<MachineDefinition[]>('/api/dashboard/machines', signal),
    staleTime: Number.POSITIVE_INFINITY,
  });
}
