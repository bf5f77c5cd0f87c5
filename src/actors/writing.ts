import type { Store } from '../persistence/store.js';
import type { Books } from './books.js';
import { createdAtStart } from './endpoint-audit.js';

/** Writes the oldest block and tells the books; does nothing when there is none. Rejects while the store is away. */
export async function writeOldest(books: Books, store: Store): Promise<void> {
  // Sums of an endpoint that has no row yet would be dropped: the endpoints come first.
  if (!books.endpointsKnown) throw new Error('the stored endpoints are not read yet');
  for (const config of books.provisional()) {
    await store.insertEndpoint(config, null, createdAtStart(config));
    books.noteStored(config.id);
  }
  const block = books.seal();
  if (block === undefined) return;
  await store.apply(block);
  books.commitThrough(block.lastSeq);
}
