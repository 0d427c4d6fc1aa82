// Makes a component of a JavaScript module: node build.js MODULE WIT WORLD COMPONENT
//
// Nothing of what a guest of the host doesn't get is built in: no HTTP, neither outgoing nor incoming.

import { writeFile } from 'node:fs/promises';

import { componentize } from '@bytecodealliance/componentize-js';

const [sourcePath, witPath, worldName, out] = process.argv.slice(2);
if (out === undefined) throw new Error('usage: node build.js MODULE WIT WORLD COMPONENT');
const { component } = await componentize({ sourcePath, witPath, worldName, disableFeatures: ['http', 'fetch-event'] });
await writeFile(out, component);
