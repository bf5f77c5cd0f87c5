/** Everything that a session or an API key may be allowed to do. */
export const PERMISSIONS = [
  'openai.inference',
  'openai.models.read',
  'endpoints.read',
  'endpoints.manage',
  'dashboard.read',
  'users.manage',
  'metrics.read',
  'logs.read',
] as const;

export type Permission = (typeof PERMISSIONS)[number];
export type Role = 'admin' | 'viewer';

/** What a new API key may do unless it is told otherwise. */
export const NEW_KEY_PERMISSIONS = [
  'openai.inference',
  'openai.models.read',
] as const satisfies readonly Permission[];

const OF_ROLE: Record<Role, ReadonlySet<Permission>> = {
  admin: new Set(PERMISSIONS),
  // Logs may hold what users wrote.
  viewer: new Set(PERMISSIONS.filter((one) => one.endsWith('.read') && one !== 'logs.read')),
};

/** A session of an admin has all; a viewer's has the `.read` ones without `logs.read`. */
export function permissionsOf(role: Role): ReadonlySet<Permission> {
  return OF_ROLE[role];
}
