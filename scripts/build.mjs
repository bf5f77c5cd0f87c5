// npm run build: dist/ from the sources.
import { prepare } from './prepare.mjs';

await prepare();
