import type { Accounts } from '../access/accounts.js';
import type { Directory } from '../access/directory.js';
import { timestamp } from '../clock.js';
import type { User } from '../persistence/access-store.js';
import { userChange, userInput } from './account-input.js';
import { parsed } from './input.js';
import { Answer, type Route } from './routes.js';

export interface UserRoutesDeps {
  accounts: Accounts;
  directory: Directory;
}

export function userRoutes({ accounts, directory }: UserRoutesDeps): Route[] {
  return [
    {
      method: 'GET',
      path: '/api/users',
      access: 'users.manage',
      run: () => ({ users: directory.users().map(userView) }),
    },
    {
      method: 'POST',
      path: '/api/users',
      access: 'users.manage',
      run: async ({ json, actor }) => {
        const { username, role } = parsed(userInput, await json());
        const { user, password } = await accounts.createUser({ username, role, password: null }, actor);
        return new Answer(201, { user: userView(user), generated_password: password });
      },
    },
    {
      method: 'PUT',
      path: '/api/users/:id',
      access: 'users.manage',
      run: async ({ params, json, actor }) => {
        const { username, role, reset_password } = parsed(userChange, await json());
        const change = { username, role, resetPassword: reset_password === true };
        const { user, password } = await accounts.updateUser(params.id ?? '', change, actor);
        return { ...userView(user), ...(password === null ? {} : { generated_password: password }) };
      },
    },
    {
      method: 'DELETE',
      path: '/api/users/:id',
      access: 'users.manage',
      run: async ({ params, actor }) => {
        await accounts.removeUser(params.id ?? '', actor);
        return new Answer(204, undefined);
      },
    },
  ];
}

function userView(user: User) {
  return {
    id: user.id,
    username: user.username,
    role: user.role,
    created_at: timestamp(user.createdAt),
    last_login: user.lastLogin === null ? null : timestamp(user.lastLogin),
    must_change_password: user.mustChangePassword,
  };
}
