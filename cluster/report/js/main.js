// ---- every section by itself: what is wrong with one leaves the others alone ------------------------------------------------
const SECTIONS = { top: head, "held-out": heldOut, curves, groups, incidents, settings };

for (const [id, draw] of Object.entries(SECTIONS)) {
  const place = document.getElementById(id);
  try {
    draw(place);
  } catch (error) {
    console.error(error);
    add(place, soft(`This section could not be drawn: ${error.message}`));
  }
}
