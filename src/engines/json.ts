export type JsonObject = Record<string, unknown>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The objects in an array; nothing for anything else. */
export function objectsIn(value: unknown): JsonObject[] {
  return Array.isArray(value) ? value.filter(isObject) : [];
}

/** The entries of a model list in any of the shapes engines use: `data`, `models`, or a bare array. */
export function listedObjects(json: unknown): JsonObject[] {
  return isObject(json) ? [...objectsIn(json.data), ...objectsIn(json.models)] : objectsIn(json);
}
