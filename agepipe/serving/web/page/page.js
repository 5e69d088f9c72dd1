// The page: a camera or a picture goes to the server, one at a time and the newest first; what comes back is drawn.

import { colour, draw, words } from "./draw.js";
import { Link } from "./link.js";

const LIVE = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } };
const STILL = 1600;  // longest side, px, of a picture that is sent
const SPOKEN = 2000;  // ms between two sentences for a screen reader
const POLL = 3000;  // ms between two looks at the server while nothing is sent
const WAIT = 1000;  // ms after an error

const part = (id) => document.getElementById(id);
const canvas = part("picture"), sent = document.createElement("canvas");
const state = { stream: null, video: null, link: null, still: null, paused: false, model: null, times: [], spoken: -Infinity };

part("server").textContent = location.host;

function say(text) {
  if (part("status").textContent !== text) part("status").textContent = text;
}

function showModel(model, problem = "") {
  state.model = model;
  part("model").textContent = model ?? "no model yet";
  part("missing").hidden = model !== null;
  part("problem").textContent = problem;
}

function showRate() {
  const now = performance.now();
  state.times = [...state.times.filter((time) => now - time < 2000), now];
  const span = (now - state.times[0]) / 1000;
  part("rate").textContent = span > 0.2 ? ` · ${Math.round((state.times.length - 1) / span)} frames/s` : "";
}

function showFaces(faces) {
  const rows = faces.map((face) => {
    const row = document.createElement("li"), range = document.createElement("b"), more = document.createElement("span");
    const [first, ...rest] = words(face);
    row.style.borderLeftColor = colour(face);
    range.textContent = first;
    more.textContent = ` · ${rest.join(" · ")}`;
    row.append(range, more);
    return row;
  });
  part("faces").replaceChildren(...rows);
}

function speak(faces, small) {
  if (performance.now() - state.spoken < SPOKEN) return;
  state.spoken = performance.now();
  const ages = faces.map((face) => face.range).join(", ");
  const found = faces.length ? `${faces.length === 1 ? "One face" : `${faces.length} faces`}: ${ages}.` : "";
  const more = small ? `${small === 1 ? "One face is" : `${small} faces are`} too small to be answered.` : "";
  say([found, more].filter(Boolean).join(" ") || "No face in the picture.");
}

function show(answer, mirrored) {
  showModel(answer.model);
  part("hint").hidden = true;
  draw(canvas, sent, answer.faces, mirrored);
  const listed = [...answer.faces].sort((one, other) => one.track - other.track);  // so that rows keep their places
  showFaces(listed);
  speak(listed, answer.small);
}

function toSend(source, width, height, quality) {
  sent.width = width;
  sent.height = height;
  sent.getContext("2d").drawImage(source, 0, 0, width, height);
  return new Promise((resolve) => sent.toBlob(resolve, "image/jpeg", quality));
}

const later = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const nextFrame = (video) => new Promise((resolve) =>
  video.requestVideoFrameCallback ? video.requestVideoFrameCallback(resolve) : requestAnimationFrame(resolve));

// Until another stream is there: the newest frame goes out when the last one has been answered.
async function watch(stream, video) {
  const mirrored = stream.getVideoTracks()[0].getSettings().facingMode !== "environment";
  while (state.stream === stream) {
    await nextFrame(video);
    if (state.paused || !state.link?.ready) { await later(50); continue; }
    const answer = await state.link.ask(await toSend(video, video.videoWidth, video.videoHeight, 0.85));
    if (state.stream !== stream || !answer) continue;
    if (answer.error) { await failed(answer.error); continue; }
    showRate();
    show(answer, mirrored);
  }
}

async function failed(why) {
  say(why);
  await look();
  await later(WAIT);
}

function stop() {
  state.stream?.getTracks().forEach((track) => track.stop());
  state.link?.close();
  Object.assign(state, { stream: null, video: null, link: null, still: null, paused: false, times: [], spoken: -Infinity });
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  part("hint").hidden = false;
  part("faces").replaceChildren();
  part("camera").textContent = "Start camera";
  part("pause").textContent = "Pause";
  part("pause").disabled = true;
  part("rate").textContent = "";
}

const TROUBLES = {
  NotAllowedError: "Camera access is blocked. Allow it in the address bar, or choose a picture.",
  NotFoundError: "There is no camera; choose a picture instead.",
  NotReadableError: "The camera is used by another program; close that one, or choose a picture.",
  OverconstrainedError: "That camera is not there any more; choose another.",
};

async function start(device = "") {
  stop();
  if (!navigator.mediaDevices) {
    return say("The browser lends its camera only to pages of this machine or over https; choose a picture instead.");
  }
  say("Waiting for the camera.");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: device ? { ...LIVE, deviceId: { exact: device } } : LIVE });
  } catch (error) {
    return say(TROUBLES[error.name] ?? `The camera cannot be used (${error.message}).`);
  }
  stop();  // another click may have been quicker
  const video = Object.assign(document.createElement("video"), { srcObject: stream, muted: true, playsInline: true });
  Object.assign(state, { stream, video, link: new Link(false, say) });
  stream.getVideoTracks()[0].onended = () => { stop(); say("The camera was disconnected."); };
  part("camera").textContent = "Stop camera";
  part("pause").disabled = false;
  await video.play();
  await listLenses(stream);
  watch(stream, video);
}

async function listLenses(stream) {
  const found = (await navigator.mediaDevices.enumerateDevices()).filter((device) => device.kind === "videoinput");
  const used = stream.getVideoTracks()[0].getSettings().deviceId;
  part("lenses").hidden = found.length < 2;
  part("lens").replaceChildren(...found.map((device, at) =>
    new Option(device.label || `Camera ${at + 1}`, device.deviceId, false, device.deviceId === used)));
}

async function openPicture(file) {
  stop();
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return say(`${file.name || "The file"} is no picture that the browser can read; take a JPEG, PNG or WebP.`);
  }
  stop();  // another picture may have been quicker
  const scale = Math.min(1, STILL / Math.max(bitmap.width, bitmap.height));
  const size = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  Object.assign(state, { still: { bitmap, size }, link: new Link(true, say) });
  await lookAtStill(state.still);
}

async function lookAtStill(still) {
  say("Looking at the picture.");
  while (state.still === still && !state.link.ready) await later(50);
  if (state.still !== still) return;
  const answer = await state.link.ask(await toSend(still.bitmap, ...still.size, 0.92));
  if (state.still !== still) return;
  if (!answer) return lookAtStill(still);
  if (answer.error) return say(answer.error);
  state.spoken = -Infinity;
  show(answer, false);
  state.link.close();
}

// What the server has, while no pictures tell; a picture is looked at again by a new model.
async function look() {
  let found;
  try {
    found = await (await fetch("status")).json();
  } catch {
    return say("The server does not answer; it may have been ended.");
  }
  const changed = found.model !== state.model;
  showModel(found.model, found.problem);
  if (changed && found.model && state.still) await openPicture(state.still.bitmap);
}

part("camera").onclick = () => { if (state.stream) { stop(); say("The camera is off."); } else start(); };
part("pause").onclick = () => {
  state.paused = !state.paused;
  part("pause").textContent = state.paused ? "Resume" : "Pause";
  if (state.paused) say("Paused: nothing is sent.");
};
part("lens").onchange = (event) => start(event.target.value);
part("choose").onclick = () => part("file").click();
part("file").onchange = (event) => { if (event.target.files[0]) openPicture(event.target.files[0]); event.target.value = ""; };
document.ondragover = (event) => { event.preventDefault(); part("stage").classList.add("over"); };
document.ondragleave = () => part("stage").classList.remove("over");
document.ondrop = (event) => {
  event.preventDefault();
  part("stage").classList.remove("over");
  if (event.dataTransfer.files[0]) openPicture(event.dataTransfer.files[0]);
};

look();
setInterval(() => { if (!document.hidden && (!state.stream || state.paused)) look(); }, POLL);
