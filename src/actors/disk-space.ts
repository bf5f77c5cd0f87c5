import { statfs } from 'node:fs/promises';

/** Bytes. */
export interface Space {
  free: number;
  total: number;
}

export interface DiskSpace {
  /** As it was when somebody last looked, at most some 30 s ago as long as it is asked for; null: not known. */
  look(): Space | null;
}

const GOOD_FOR_MS = 30_000;

/** The space of a file system. One look at a time: a file system that hangs keeps one thread and no more. */
export function diskSpaceOf(read: () => Promise<Space>, mono: () => number): DiskSpace {
  let known: Space | null = null;
  let readAt = Number.NEGATIVE_INFINITY;
  let isReading = false;

  function refresh(): void {
    isReading = true;
    readAt = mono();
    read()
      .then(
        (space) => {
          known = space;
        },
        // Not every file system tells.
        () => {
          known = null;
        },
      )
      .finally(() => {
        isReading = false;
      });
  }

  return {
    look() {
      if (!isReading && mono() - readAt >= GOOD_FOR_MS) refresh();
      return known;
    },
  };
}

/** The space on the file system of a path, for whoever is not root. */
export async function spaceAt(path: string): Promise<Space> {
  const { bavail, blocks, bsize } = await statfs(path);
  return { free: bavail * bsize, total: blocks * bsize };
}
