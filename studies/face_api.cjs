// Predict the ages of faces with @vladmandic/face-api: raw RGB chips on standard input, one age a line on standard output.
//
//     node face_api.cjs NODE_MODULES SIDE < CHIPS
//
// `studies.peers` calls it. NODE_MODULES is the folder that npm installed the packages in; SIDE is the chips' side in px.

const path = require('node:path');
const { createRequire } = require('node:module');

async function main([modules, side]) {
  const load = createRequire(path.join(modules, 'here.js'));
  const tf = load('@tensorflow/tfjs');
  const wasm = load('@tensorflow/tfjs-backend-wasm');
  wasm.setWasmPaths(path.dirname(load.resolve('@tensorflow/tfjs-backend-wasm/package.json')) + '/dist/');
  await tf.setBackend('wasm');
  await tf.ready();
  const faceapi = load('@vladmandic/face-api/dist/face-api.node-wasm.js');
  const net = faceapi.nets.ageGenderNet;
  await net.loadFromDisk(path.join(modules, '@vladmandic/face-api/model'));
  const bytes = Number(side) * Number(side) * 3;
  let rest = Buffer.alloc(0);
  for await (const block of process.stdin) {
    rest = Buffer.concat([rest, block]);
    for (; rest.length >= bytes; rest = rest.subarray(bytes)) {
      const chip = tf.tensor3d(new Uint8Array(rest.subarray(0, bytes)), [Number(side), Number(side), 3], 'int32');
      const { age } = await net.predictAgeAndGender(chip);
      chip.dispose();
      process.stdout.write(`${age}\n`);
    }
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exit(1);
});
