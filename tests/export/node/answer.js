// node answer.js FILE: reads {"shape": [batch, height, width], "image": base64 of float32}, writes each output.
const ort = require("onnxruntime-node");

async function main() {
  let text = "";
  for await (const part of process.stdin) text += part;
  const asked = JSON.parse(text);
  const bytes = Buffer.from(asked.image, "base64");
  const image = new Float32Array(new Uint8Array(bytes).buffer);
  const session = await ort.InferenceSession.create(process.argv[2]);
  const found = await session.run({ image: new ort.Tensor("float32", image, asked.shape) });
  const told = {};
  for (const [name, own] of Object.entries(found)) {
    told[name] = { shape: own.dims, values: Array.from(own.data, Number) };
  }
  console.log(JSON.stringify(told));
}

main();
