// What is drawn on a picture: a box for each face with range, probability and age.

// Colours that colour-blind people can distinguish (after M. Okabe and K. Ito). A track keeps its colour.
const PALETTE = ["#56b4e9", "#e69f00", "#00c88c", "#f0e442", "#cc79a7", "#ff6e3c", "#9696ff"];

const SMALL = 480;  // CSS px; below this width the font is smaller, so that the labels of two faces fit side by side

export const colour = (face) => PALETTE[face.track % PALETTE.length];

// The label of a face: range, probability, age, and the 90 % prediction set if it has more than one range.
export function words(face) {
  const found = [face.range, `${Math.round(100 * face.probability)}\u00a0%`, `about ${Math.round(face.age)} years`];
  return face.set ? [...found, `90\u00a0% sure: ${face.set}`] : found;
}

// Draw a picture and the detected faces at the resolution of the screen.
export function draw(canvas, picture, faces, mirrored) {
  const shown = picture.width / picture.height;
  const wide = Math.round(canvas.parentElement.clientWidth * devicePixelRatio);
  canvas.width = wide;
  canvas.height = Math.round(wide / shown);
  const ink = canvas.getContext("2d"), scale = wide / picture.width;
  ink.save();
  if (mirrored) ink.setTransform(-1, 0, 0, 1, wide, 0);
  ink.drawImage(picture, 0, 0, canvas.width, canvas.height);
  ink.restore();
  // canvas pixels for each CSS pixel, also if the height limits the size
  const across = Math.min(canvas.clientWidth, canvas.clientHeight * shown), unit = wide / across;
  const type = across < SMALL ? 0.85 * unit : unit;
  for (const face of faces) {
    const [left, top, width, height] = face.box.map((value) => value * scale);
    box(ink, face, mirrored ? wide - left - width : left, top, width, height, unit, type);
  }
}

function box(ink, face, left, top, width, height, unit, type) {
  ink.strokeStyle = ink.fillStyle = colour(face);
  ink.lineWidth = 3 * unit;
  ink.beginPath();
  ink.roundRect(left, top, width, height, 6 * unit);
  ink.stroke();
  const [range, probability, ...more] = words(face);
  label(ink, [`${range}   ${probability}`, ...more], left, top, height, type);
}

// Above the box if there is room, else below it, else inside it; always inside the picture.
function label(ink, texts, left, top, height, unit) {
  const step = 19 * unit, pad = 6 * unit;
  ink.font = `600 ${14 * unit}px system-ui, sans-serif`;
  const wide = Math.max(...texts.map((text) => ink.measureText(text).width)) + 2 * pad;
  const tall = texts.length * step + pad;
  const x = Math.max(0, Math.min(left, ink.canvas.width - wide));
  const below = top + height, fits = below + tall <= ink.canvas.height;
  const y = Math.max(0, Math.min(top >= tall ? top - tall : fits ? below : top, ink.canvas.height - tall));
  ink.fillRect(x, y, wide, tall);
  ink.fillStyle = "#141414";
  ink.textBaseline = "middle";
  texts.forEach((text, row) => ink.fillText(text, x + pad, y + pad / 2 + (row + 0.5) * step));
}
