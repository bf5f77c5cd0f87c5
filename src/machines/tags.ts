/** Whether a model's name says which of its versions it means. A colon in an earlier part of its path is that of a port. */
export function hasTag(model: string): boolean {
  return model.includes(':', model.lastIndexOf('/') + 1);
}
