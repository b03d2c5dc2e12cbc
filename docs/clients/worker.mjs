// A client of the worker protocol (docs/worker-protocol.md) in JavaScript; Node.js 18 or newer, no packages.
//
//   node docs/clients/worker.mjs PYTHON WORKER_MAIN MODEL.json AUDIO.f32 RATE
//
// PYTHON runs WORKER_MAIN (src/grym/worker/__main__.py, or "-m" with grym.worker installed); MODEL.json is
// {"name", "adapter", "options"}; AUDIO.f32 holds little-endian float32 samples. Prints one JSON line.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { randomUUID } from "node:crypto";

export class Worker {
  constructor(python, main) {
    const entry = main === "-m" ? ["-I", "-m", "grym.worker"] : ["-I", main];
    this.child = spawn(python, entry, { stdio: ["pipe", "pipe", "ignore"] });
    this.ended = once(this.child, "exit");
    this.chunks = this.child.stdout[Symbol.asyncIterator]();
    this.buffer = Buffer.alloc(0);
  }

  // One request, one reply: { header, frames }; frames are Float32Array on both sides.
  async ask(operation, data = {}, frames = [], deadline = 60) {
    const id = randomUUID();
    const bytes = frames.map((frame) => Buffer.from(frame.buffer, frame.byteOffset, frame.byteLength));
    const header = { id, operation, data, deadline, frames: bytes.map((part) => part.length) };
    const text = Buffer.from(JSON.stringify(header), "utf8");
    const length = Buffer.alloc(4);
    length.writeUInt32BE(text.length);
    for (const part of [length, text, ...bytes]) {
      if (!this.child.stdin.write(part)) await once(this.child.stdin, "drain");
    }
    const reply = await this.read();
    if (reply.header.id !== id) throw new Error("a reply to another request");
    if (reply.header.status !== "success") {
      const { message, type, details } = reply.header.error;
      throw Object.assign(new Error(message), { type, details });
    }
    return { result: reply.header.result, usage: reply.header.usage, frames: reply.frames };
  }

  async read() {
    const length = (await this.take(4)).readUInt32BE();
    const header = JSON.parse((await this.take(length)).toString("utf8"));
    const frames = [];
    for (const size of header.frames) {
      const part = Uint8Array.from(await this.take(size)); // a copy, so that it is aligned
      frames.push(new Float32Array(part.buffer));
    }
    return { header, frames };
  }

  async take(size) {
    while (this.buffer.length < size) {
      const { value, done } = await this.chunks.next();
      if (done) throw new Error("the worker ended");
      this.buffer = Buffer.concat([this.buffer, value]);
    }
    const taken = this.buffer.subarray(0, size);
    this.buffer = this.buffer.subarray(size);
    return taken;
  }

  // Ends the worker; its exit code.
  async close() {
    await this.ask("shutdown");
    this.child.stdin.end();
    return (await this.ended)[0];
  }
}

const [python, main, model, audio, rate] = process.argv.slice(2);
const worker = new Worker(python, main);
const limited = await worker.ask("limit", { open_files: 256, confine: true, writable: [process.cwd()] });
const { result: loaded } = await worker.ask("load", { spec: JSON.parse(await readFile(model, "utf8")) });
const raw = Uint8Array.from(await readFile(audio));
const samples = new Float32Array(raw.buffer);
const clip = { id: "clip", rate: Number(rate), samples: samples.length, frame: 0 };
const heard = await worker.ask("process_audio", { audio: [clip], options: { features: true } }, [samples]);
let refused = "";
await worker.ask("analyze", { audio: [], level: "deep" }).catch((error) => (refused = error.details.code));
console.log(
  JSON.stringify({
    model: loaded.card.name,
    kept: limited.result.kept,
    text: heard.result.answers[0].text,
    features: Array.from(heard.frames[0]),
    refused,
    exit: await worker.close(),
  }),
);
