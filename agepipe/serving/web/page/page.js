// The page: send camera frames or a picture to the server, one at a time, and draw the predictions.

import { colour, draw, words } from "./draw.js";
import { Link } from "./link.js";

const LIVE = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } };
const STILL = 1600;  // longest side, px, of a picture that is sent
const SPOKEN = 2000;  // ms between two status messages for a screen reader
const POLL = 3000;  // ms between two requests of the server's status while nothing is sent
const WAIT = 1000;  // ms after an error

const part = (id) => document.getElementById(id);
const canvas = part("picture"), sent = document.createElement("canvas");
const state = { stream: null, video: null, link: null, still: null, paused: false, model: null, times: [], spoken: -Infinity };

part("server").textContent = location.host;

function setStatus(text) {
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
  const more = small ? `${small === 1 ? "One face is" : `${small} faces are`} too small for a prediction.` : "";
  setStatus([found, more].filter(Boolean).join(" ") || "No face in the picture.");
}

function show(answer, mirrored) {
  showModel(answer.model);
  part("hint").hidden = true;
  draw(canvas, sent, answer.faces, mirrored);
  const listed = [...answer.faces].sort((one, other) => one.track - other.track);  // so that rows keep their positions
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

// Until the stream changes: send the newest frame whenever the previous answer has arrived.
async function sendFrames(stream, video) {
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
  setStatus(why);
  await checkServer();
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
  OverconstrainedError: "That camera is no longer available; choose another.",
};

async function start(device = "") {
  stop();
  if (!navigator.mediaDevices) {
    return setStatus("The browser allows the camera only on pages of this machine or over https; choose a picture instead.");
  }
  setStatus("Waiting for the camera.");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: device ? { ...LIVE, deviceId: { exact: device } } : LIVE });
  } catch (error) {
    return setStatus(TROUBLES[error.name] ?? `The camera cannot be used (${error.message}).`);
  }
  stop();  // another click may have started a stream meanwhile
  const video = Object.assign(document.createElement("video"), { srcObject: stream, muted: true, playsInline: true });
  Object.assign(state, { stream, video, link: new Link(false, setStatus) });
  stream.getVideoTracks()[0].onended = () => { stop(); setStatus("The camera was disconnected."); };
  part("camera").textContent = "Stop camera";
  part("pause").disabled = false;
  await video.play();
  await listLenses(stream);
  sendFrames(stream, video);
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
    return setStatus(`The browser cannot read ${file.name || "the file"}; choose a JPEG, PNG or WebP.`);
  }
  stop();  // another picture may have been opened meanwhile
  const scale = Math.min(1, STILL / Math.max(bitmap.width, bitmap.height));
  const size = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  Object.assign(state, { still: { bitmap, size }, link: new Link(true, setStatus) });
  await predictStill(state.still);
}

async function predictStill(still) {
  setStatus("Analysing the picture.");
  while (state.still === still && !state.link.ready) await later(50);
  if (state.still !== still) return;
  const answer = await state.link.ask(await toSend(still.bitmap, ...still.size, 0.92));
  if (state.still !== still) return;
  if (!answer) return predictStill(still);
  if (answer.error) return setStatus(answer.error);
  state.spoken = -Infinity;
  show(answer, false);
  state.link.close();
}

// Show the server's model while nothing is sent; a new model predicts the present picture again.
async function checkServer() {
  let found;
  try {
    found = await (await fetch("status")).json();
  } catch {
    return setStatus("The server does not respond; it may have stopped.");
  }
  const changed = found.model !== state.model;
  showModel(found.model, found.problem);
  if (changed && found.model && state.still) await openPicture(state.still.bitmap);
}

part("camera").onclick = () => { if (state.stream) { stop(); setStatus("The camera is off."); } else start(); };
part("pause").onclick = () => {
  state.paused = !state.paused;
  part("pause").textContent = state.paused ? "Resume" : "Pause";
  if (state.paused) setStatus("Paused: nothing is sent.");
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

checkServer();
setInterval(() => { if (!document.hidden && (!state.stream || state.paused)) checkServer(); }, POLL);
