import { computed, shallowRef } from 'vue';
import { get, hasSession, post, put, Refusal, whenSignedOut } from './api/http.js';

export interface Me {
  user_id: string | null;
  username: string;
  role: 'admin' | 'viewer' | null;
  must_change_password: boolean;
}

/** Undefined: not asked yet; null: nobody is logged in. */
export const me = shallowRef<Me | null | undefined>(undefined);
/** Nobody has to log in here, and so nobody can log out. */
export const isOpen = shallowRef(false);
export const isAdmin = computed(() => me.value?.role === 'admin');

whenSignedOut(() => {
  me.value = null;
});

/** Who the browser's cookie says we are. Rejects if nobody answers. */
export async function whoAmI(): Promise<Me | null> {
  try {
    if (!hasSession()) isOpen.value = (await get<{ is_open: boolean }>('/dashboard/access.json')).is_open;
    me.value = hasSession() || isOpen.value ? await get<Me>('/api/auth/me') : null;
  } catch (error) {
    if (!(error instanceof Refusal && error.status === 401)) throw error;
    me.value = null;
  }
  return me.value;
}

export async function logIn(username: string, password: string): Promise<void> {
  await post('/api/auth/login', { username, password });
  await whoAmI();
}

/** The server ends what is open for this session, and that is no failure. */
export const isLeaving = shallowRef(false);

export async function logOut(): Promise<void> {
  isLeaving.value = true;
  try {
    await post('/api/auth/logout');
    me.value = null;
  } finally {
    isLeaving.value = false;
  }
}

/** Ends every session of the user, and begins a new one. */
export async function changePassword(current: string, fresh: string): Promise<void> {
  isLeaving.value = true;
  try {
    await put('/api/auth/change-password', { current_password: current, new_password: fresh });
    await whoAmI();
  } finally {
    isLeaving.value = false;
  }
}
