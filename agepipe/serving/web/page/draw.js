// What is drawn on a picture: a box for each face with range, probability and age.

// RGB; told apart by colour-blind people as well (after M. Okabe and K. Ito). A face keeps its colour.
const PALETTE = ["#56b4e9", "#e69f00", "#00c88c", "#f0e442", "#cc79a7", "#ff6e3c", "#9696ff"];

const SMALL = 480;  // CSS px; on a narrower picture the type is smaller, so that two faces have room for their labels

export const colour = (face) => PALETTE[face.track % PALETTE.length];

// What is said of a face: range, probability, expected age, and where the model is unsure the 90 % set.
export function words(face) {
  const found = [face.range, `${Math.round(100 * face.probability)}\u00a0%`, `about ${Math.round(face.age)} years`];
  return face.set ? [...found, `90\u00a0% sure: ${face.set}`] : found;
}

// Draw a picture and the faces that were found in it, as sharp as the screen is.
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
  // canvas pixels a CSS pixel, also where the height is what limits the size
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

// Above the box where there is room, or below it, otherwise inside it; always inside the picture.
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
