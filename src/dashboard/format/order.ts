const collator = new Intl.Collator(undefined, { numeric: true });

/** As people order names: `box 2` before `box 10`. */
export const byName = (a: string, b: string): number => collator.compare(a, b);
