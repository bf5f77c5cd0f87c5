import 'vue-router';

declare module 'vue-router' {
  interface RouteMeta {
    /** Nobody needs to be logged in. */
    open?: boolean;
    /** For admins only. */
    admin?: boolean;
  }
}
